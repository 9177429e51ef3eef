"""Writes a GGUF file like another, with other weights: its metadata, tokenizer included, is copied
byte for byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line
from edge_conflayers.hub.room import NO_ROOM
from edge_conflayers.onnx.gguf_file import GgufFile, GgufTensor
from edge_conflayers.train.quantize import OutType, file_type, quantized, stored_size, type_for

_FILE_TYPE = "general.file_type"
_UINT32 = 4  # GGUF's number of the type


def check_target(file: GgufFile, target: Path, outtype: OutType) -> None:
    """Refuses a file that can't be written, before hours are spent on what goes into it.

    Raises:
        BadInput: it exists, or its folder is not there or can't be written.
        EdgeConflayersError: there is no room for it.
    """
    if target.exists() or target.is_symlink():
        raise BadInput(f"{target} exists; give --out a new file's name")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}; create it, or give --out another name")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{folder} can't be written; give --out a file in another folder")
    wanted = sum(stored_size(each, type_for(each, outtype)) for each in file.tensors.values())
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise EdgeConflayersError(
            f"no room for {target}: {wanted / 1e6:.0f} MB are wanted, {free / 1e6:.0f} MB are free;"
            " free some, or give --out a file on another disk"
        )


def write_like(
    file: GgufFile,
    target: Path,
    values: Mapping[str, npt.NDArray[np.float32]],
    outtype: OutType,
) -> None:
    """Writes a model with the metadata and tensors of another.

    The file gets its name when it is complete; after a failure nothing is left of it.

    Args:
        file: the other. Of a split one, all parts come into one file.
        values: float32 weights by tensor, in the other's shapes.

    Raises:
        BadInput: the file can't be written.
        EdgeConflayersError: there is no room, or a weight is no number.
    """
    work = target.with_name(f".{target.name}.part")
    try:
        with work.open("wb") as stream:
            _write(stream, file, values, outtype)
        os.replace(work, target)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise EdgeConflayersError(
                f"no room for {target} ({error.strerror}); give --out a file on another disk"
            ) from None
        raise BadInput(
            f"{target} can't be written ({one_line(error)}); give --out another file"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            work.unlink()


def _write(
    stream: BinaryIO,
    file: GgufFile,
    values: Mapping[str, npt.NDArray[np.float32]],
    outtype: OutType,
) -> None:
    pairs = list(_metadata(file, file_type(file, outtype)))
    stream.write(struct.pack("<4sIQQ", b"GGUF", 3, len(file.tensors), len(pairs)))
    for pair in pairs:
        stream.write(pair)
    given = file.header.values.get("general.alignment")
    alignment = given if isinstance(given, int) else gguf.GGUF_DEFAULT_ALIGNMENT
    offset = 0
    for tensor in file.tensors.values():
        kind = type_for(tensor, outtype)
        stream.write(_description(tensor, kind, offset))
        offset += -(-stored_size(tensor, kind) // alignment) * alignment
    for tensor in file.tensors.values():
        stream.write(bytes(-stream.tell() % alignment))
        rows = values[tensor.name].reshape(tensor.rows, tensor.columns)
        for part in quantized(rows, type_for(tensor, outtype)):
            stream.write(part.data)
    stream.write(bytes(-stream.tell() % alignment))


def _metadata(file: GgufFile, file_type: int | None) -> Iterator[bytes]:
    """The metadata's pairs as bytes, without what says that the file is split."""
    with file.path.open("rb") as source:
        for key, (begin, end) in file.header.extents.items():
            if key.startswith("split."):
                continue
            if key == _FILE_TYPE and file_type is not None:
                name = key.encode()
                yield struct.pack(f"<Q{len(name)}sII", len(name), name, _UINT32, file_type)
                continue
            source.seek(begin)
            yield source.read(end - begin)


def _description(tensor: GgufTensor, kind: gguf.GGMLQuantizationType, offset: int) -> bytes:
    name, dims = tensor.name.encode(), tuple(reversed(tensor.shape))
    return struct.pack(
        f"<Q{len(name)}sI{len(dims)}QIQ", len(name), name, len(dims), *dims, int(kind), offset
    )
