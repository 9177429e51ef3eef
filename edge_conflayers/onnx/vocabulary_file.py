"""A GGUF file with another's metadata and vocabulary, and no tensors."""

from __future__ import annotations

import struct
from pathlib import Path

from edge_conflayers.engine.gguf_header import read_header

_PART_KEYS = "split."  # which file of a split model it is


def write_vocabulary_file(source: Path, target: Path) -> None:
    """Copies each key and value of a GGUF file, byte for byte and in order.

    Left out is what makes llama.cpp look for the other files of a split model.

    Raises:
        BadInput: the source is no GGUF file.
    """
    extents = [
        extent
        for key, extent in read_header(source).extents.items()
        if not key.startswith(_PART_KEYS)
    ]
    with source.open("rb") as read, target.open("wb") as write:
        write.write(read.read(8))  # magic and version
        write.write(struct.pack("<QQ", 0, len(extents)))
        for begin, end in extents:
            read.seek(begin)
            write.write(read.read(end - begin))
