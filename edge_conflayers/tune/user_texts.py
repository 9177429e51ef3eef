"""Reads the user's own texts, for a head to learn from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edge_conflayers.errors import BadInput

MOST_BYTES = 64 << 20
"""Bytes that are read of all files; a night of learning takes some ten million."""

_MOST_OF_FILE = 1 << 20  # larger files are seldom written by people
_LOOKED_AT = 4096  # bytes of a file that tell text from other data


def read_user_texts(path: Path) -> list[str]:
    """The texts of a file, or of all files under a folder but for hidden ones, in order of their
    names. What is not UTF-8 text, is over a megabyte or cannot be read is left out of a folder.

    Raises:
        BadInput: the path cannot be read, or there is no text under it.
    """
    if not path.is_dir():
        try:
            data = path.read_bytes()[:MOST_BYTES]
        except OSError as error:
            raise BadInput(f"the texts {path} cannot be read ({error.strerror})") from None
        text = _text(data)
        if text is None:
            raise BadInput(f"{path} is no UTF-8 text; give a text file or a folder of them")
        return [text]
    texts, left = [], MOST_BYTES
    for file in _files(path):
        try:
            size = file.stat().st_size
            data = file.read_bytes() if 0 < size <= min(_MOST_OF_FILE, left) else b""
        except OSError:
            continue
        if text := _text(data):
            texts.append(text)
            left -= len(data)
    if not texts:
        raise BadInput(f"there is no text under {path}; give a folder with text files or code")
    return texts


def _files(folder: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in sorted(files):
            path = Path(name, file)
            if not file.startswith(".") and path.is_file():
                yield path


def _text(data: bytes) -> str | None:
    """None for what is no text, or only spaces."""
    if b"\0" in data[:_LOOKED_AT]:
        return None
    try:
        return data.decode("utf-8-sig").strip() or None
    except UnicodeDecodeError:
        return None
