"""The tensors of a GGUF file, read in pieces so that large ones need little memory."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.gguf_header import Header, read_header
from edge_conflayers.errors import BadInput

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CHUNK_ELEMENTS = 1 << 22
"""Elements that are unpacked at a time: 16 MB as float32. Not tuned."""

_CHUNK_BYTES = 1 << 20
_LONGEST_NAME = 1024
_MOST_DIMENSIONS = 4
_TYPES = {type.value: type for type in gguf.GGML_QUANT_SIZES}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file, as a matrix: a vector is one row.

    Attributes:
        name: its name in the file.
        type: how its elements are stored.
        shape: rows first, as numpy has it.
        path: the file.
        offset: where in the file it begins.
    """

    name: str
    type: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def row_bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(self.columns // block * size)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.rows * self.row_bytes

    def read(self, begin: int = 0, end: int | None = None) -> Bytes:
        """The bytes of some rows, as they are stored: uint8 [rows, row_bytes].

        Raises:
            BadInput: the file is shorter than it says.
        """
        end = self.rows if end is None else end
        with self.path.open("rb") as stream:
            stream.seek(self.offset + begin * self.row_bytes)
            data = np.fromfile(stream, np.uint8, (end - begin) * self.row_bytes)
        if data.size != (end - begin) * self.row_bytes:
            raise BadInput(f"{self.path} is cut off in {self.name}; fetch it again")
        return data.reshape(end - begin, self.row_bytes)

    def values(self) -> Floats:
        """All elements, dequantized: float32 of ``shape``. For small tensors."""
        return dequantize(self.read(), self.type).reshape(self.shape)


def dequantize(rows: Bytes, type: gguf.GGMLQuantizationType) -> Floats:
    """Stored rows as float32, as the ``gguf`` package dequantizes them."""
    values = gguf.quants.dequantize(rows, type)
    return np.ascontiguousarray(values, dtype=np.float32)


@dataclass(frozen=True)
class GgufFile:
    """A GGUF model.

    Attributes:
        path: its file; of a split model, the first.
        header: its metadata.
        tensors: by name.
    """

    path: Path
    header: Header
    tensors: dict[str, GgufTensor]

    def sha256(self, on_bytes: Callable[[int], None]) -> str:
        """SHA-256 of the file (of a split model, of its first part), in hexadecimal.

        Args:
            on_bytes: told how many bytes were read, again and again.
        """
        found = hashlib.sha256()
        with self.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                found.update(chunk)
                on_bytes(len(chunk))
        return found.hexdigest()


def read_gguf(path: Path) -> GgufFile:
    """A model's metadata and where its tensors are.

    Raises:
        BadInput: not readable, or damaged.
    """
    header = read_header(path)
    parts = header.values.get("split.count", 1)
    tensors: dict[str, GgufTensor] = {}
    for number in range(1, (parts if isinstance(parts, int) else 1) + 1):
        part = path
        if number > 1:
            part = path.with_name(
                path.name.replace(f"-00001-of-{parts:05d}", f"-{number:05d}-of-{parts:05d}")
            )
        for tensor in _tensors(part, header if number == 1 else read_header(part)):
            tensors[tensor.name] = tensor
    return GgufFile(path, header, tensors)


def _tensors(path: Path, header: Header) -> Iterator[GgufTensor]:
    alignment = header.values.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0:
        raise BadInput(f"{path} is damaged (general.alignment is {alignment}); fetch it again")
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            stream.seek(max((end for _, end in header.extents.values()), default=24))
            found = [_description(stream.read) for _ in range(header.n_tensors)]
            begin = -(-stream.tell() // alignment) * alignment
    except (struct.error, ValueError, UnicodeDecodeError):
        raise BadInput(f"{path} is damaged in its list of tensors; fetch it again") from None
    for name, number, shape, offset in found:
        type = _TYPES.get(number)
        if type is None:
            raise BadInput(f"{path}: {name} is of type {number}, which can't be read")
        block = gguf.GGML_QUANT_SIZES[type][0]
        tensor = GgufTensor(name, type, shape, path, begin + offset)
        if shape[-1] % block or tensor.offset + tensor.size > size:
            raise BadInput(f"{path} is damaged or cut off in {name}; fetch it again")
        yield tensor


def _description(read: Callable[[int], bytes]) -> tuple[str, int, tuple[int, ...], int]:
    """The next tensor's name, number of its type, shape (rows first) and offset."""
    (length,) = struct.unpack("<Q", read(8))
    if length > _LONGEST_NAME:
        raise ValueError("a name that is too long")
    name = read(length).decode("utf-8")
    (n_dims,) = struct.unpack("<I", read(4))
    if not 1 <= n_dims <= _MOST_DIMENSIONS:
        raise ValueError("a wrong number of dimensions")
    dims = struct.unpack(f"<{n_dims}Q", read(8 * n_dims))
    if not all(dims):
        raise ValueError("an empty tensor")
    number, offset = struct.unpack("<IQ", read(12))
    return name, number, tuple(reversed(dims)), offset
