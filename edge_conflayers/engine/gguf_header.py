"""Reads the metadata of a GGUF file, fast and without trust in it.

llama.cpp reads a file's header well, but aborts the process on some values of it. This reader
finds the values first. It steps over the vocabulary's strings without looking at them, unless they
are asked for, which takes some 20 ms for 150,000 tokens; the ``gguf`` package takes seconds.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_conflayers.errors import BadInput

Value = int | float | bool | str | tuple[int | float | bool, ...]

_VERSIONS = (2, 3)
FIXED_BYTES = 24
"""Magic, version, and the two counts."""
_STRING, _ARRAY = 8, 9
# By GGUF's number of the type (ggml/include/gguf.h), as struct writes it.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# Longer arrays belong to the vocabulary; llama.cpp takes at most 512 layers.
_LONGEST_ARRAY = 1024
_LONGEST_KEY = 65535  # by the GGUF specification


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        values: metadata by key. Arrays of strings are left out, and long arrays unless the whole
            was read.
        lengths: how many elements each array has, by key.
        n_tensors: tensors in this file.
        strings: arrays of strings by key, if the whole was read. Bytes that are not UTF-8 are
            lone surrogates, as Python's "surrogateescape" has them.
        extents: of each key with its value, where in the file they begin and end.
    """

    values: dict[str, Value]
    lengths: dict[str, int]
    n_tensors: int
    strings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extents: dict[str, tuple[int, int]] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """A string value; empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


class _CutOff(Exception):
    """The file ends inside its header."""


def read_header(path: Path, *, whole: bool = False) -> Header:
    """The metadata of a GGUF file.

    Args:
        whole: read long arrays and arrays of strings, too: the vocabulary.

    Raises:
        BadInput: no such file, not readable, or not a GGUF file that llama.cpp could read.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(FIXED_BYTES)
            _check_start(path, start)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(data, whole)
    except FileNotFoundError:
        raise BadInput(
            f"{path} does not exist; give a .gguf file or a name of `models list`"
        ) from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; give a .gguf file") from None
    except _CutOff:
        raise BadInput(f"{path} is cut off in its header; fetch it again") from None
    except ValueError as error:
        raise BadInput(f"{path} is damaged in its header ({error}); fetch it again") from None


def _check_start(path: Path, start: bytes) -> None:
    if start[:4] != b"GGUF":
        raise BadInput(f"{path} is not a GGUF file; convert it, or give one that is")
    if len(start) < FIXED_BYTES:
        raise _CutOff
    version = int.from_bytes(start[4:8], "little")
    if version not in _VERSIONS:
        if int.from_bytes(start[4:8], "big") in (1, *_VERSIONS):
            raise BadInput(f"{path} is a big-endian GGUF file; convert it for this machine")
        raise BadInput(f"{path} is GGUF version {version}; versions 2 and 3 can be read")


def _read(data: mmap.mmap, whole: bool) -> Header:
    size = len(data)
    n_tensors, n_pairs = struct.unpack_from("<qq", data, 8)
    # A pair takes at least 13 bytes, a tensor's description at least 24.
    if not 0 <= n_pairs <= size // 13 or not 0 <= n_tensors <= size // 24:
        raise ValueError("it counts more entries than the file has room for")
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    strings: dict[str, tuple[str, ...]] = {}
    extents: dict[str, tuple[int, int]] = {}
    at = FIXED_BYTES
    try:
        for _ in range(n_pairs):
            begin = at
            (length,) = struct.unpack_from("<Q", data, at)
            if length > min(_LONGEST_KEY, size - at):
                raise ValueError("a key that is too long")
            key = data[at + 8 : at + 8 + length].decode("utf-8", errors="replace")
            at += 8 + length
            (kind,) = struct.unpack_from("<I", data, at)
            at += 4
            if kind == _STRING:
                (length,) = struct.unpack_from("<Q", data, at)
                if length > size - at - 8:
                    raise _CutOff
                values[key] = data[at + 8 : at + 8 + length].decode("utf-8", errors="replace")
                at += 8 + length
            elif kind == _ARRAY:
                element, length = struct.unpack_from("<IQ", data, at)
                at += 12
                lengths[key] = length
                if element == _STRING and whole:
                    strings[key], at = _strings(data, at, length, size)
                elif element == _STRING:
                    at = _after_strings(data, at, length, size)
                else:
                    code = _code(element, key)
                    width = struct.calcsize(f"<{code}")
                    if length > (size - at) // width:
                        raise _CutOff
                    if whole or length <= _LONGEST_ARRAY:
                        values[key] = struct.unpack_from(f"<{length}{code}", data, at)
                    at += width * length
            else:
                code = _code(kind, key)
                (values[key],) = struct.unpack_from(f"<{code}", data, at)
                at += struct.calcsize(f"<{code}")
            extents[key] = (begin, at)
    except (struct.error, OverflowError):
        raise _CutOff from None
    return Header(values, lengths, n_tensors, strings, extents)


def _code(kind: int, key: str) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"{key[:100]!r} has the unknown type {kind}")
    return _SCALARS[kind]


def _after_strings(data: mmap.mmap, at: int, n: int, size: int) -> int:
    """Where an array of n strings ends that begins at ``at``."""
    if n > (size - at) // 8:
        raise _CutOff
    unpack: Callable[[mmap.mmap, int], tuple[int]] = struct.Struct("<Q").unpack_from
    for _ in range(n):
        at += 8 + unpack(data, at)[0]
    return at


def _strings(data: mmap.mmap, at: int, n: int, size: int) -> tuple[tuple[str, ...], int]:
    """An array of n strings that begins at ``at``, and where it ends."""
    if n > (size - at) // 8:
        raise _CutOff
    unpack: Callable[[mmap.mmap, int], tuple[int]] = struct.Struct("<Q").unpack_from
    found = []
    for _ in range(n):
        begin = at + 8
        at = begin + unpack(data, at)[0]
        if at > size:
            raise _CutOff
        found.append(data[begin:at].decode("utf-8", errors="surrogateescape"))
    return tuple(found), at
