"""The tensors of a GGUF file: names, shapes, types, sizes. Their data are not read."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from edge_conflayers.engine.ggml import TensorType, tensor_types
from edge_conflayers.engine.gguf_header import FIXED_BYTES, Header, read_header
from edge_conflayers.errors import BadInput

_MOST_DIMENSIONS = 4  # GGML_MAX_DIMS


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: such as "blk.0.attn_q.weight".
        shape: innermost dimension first, as ggml has it.
        type: of its values.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_values // self.type.block * self.type.block_bytes

    @property
    def is_matrix(self) -> bool:
        """Whether it has two dimensions, as what a step multiplies by has; experts have three."""
        return sum(size > 1 for size in self.shape) == 2


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of a model, of all its parts if it is split.

    Args:
        path: the file, or the first part.

    Raises:
        BadInput: a file is damaged, or has a type of tensors that this build does not know.
    """
    header = read_header(path)
    parts = header.values.get("split.count", 1)
    tensors = _read_part(path, header)
    for part in range(2, parts + 1 if isinstance(parts, int) else 0):
        other = path.with_name(
            path.name.replace(f"-00001-of-{parts:05d}", f"-{part:05d}-of-{parts:05d}")
        )
        tensors += _read_part(other, read_header(other))
    return tensors


def _read_part(path: Path, header: Header) -> list[Tensor]:
    at = max((end for _, end in header.extents.values()), default=FIXED_BYTES)
    types = tensor_types()
    found = []
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for _ in range(header.n_tensors):
                (length,) = struct.unpack_from("<Q", data, at)
                name = data[at + 8 : at + 8 + length].decode("utf-8", errors="replace")
                at += 8 + length
                (n_dims,) = struct.unpack_from("<I", data, at)
                if n_dims > _MOST_DIMENSIONS:
                    raise BadInput(f"{path} is damaged ({name} has {n_dims} dimensions)")
                shape = struct.unpack_from(f"<{n_dims}Q", data, at + 4)
                at += 4 + 8 * n_dims
                number, _offset = struct.unpack_from("<IQ", data, at)
                at += 12
                if number not in types:
                    raise BadInput(
                        f"{name} in {path} has type {number}, which this llama.cpp does not know;"
                        " use another quantization"
                    )
                found.append(Tensor(name, shape, types[number]))
    except (struct.error, OverflowError):
        raise BadInput(f"{path} is cut off in its list of tensors; fetch it again") from None
    return found
