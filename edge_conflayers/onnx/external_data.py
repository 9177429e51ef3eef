"""The file beside the graph that holds the weights, written piece by piece."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]
Chunks = Callable[[], Iterable[Sequence[Array]]]

# Pages of a mapped file begin at multiples of it, and runtimes map weights only there.
_ALIGNMENT = 4096


@dataclass(frozen=True)
class Region:
    """A part of the file, which holds one tensor.

    Attributes:
        offset, size: in bytes.
    """

    offset: int
    size: int


@dataclass
class DataFile:
    """The file of a graph's weights: first planned, so that the graph can name places in it, then
    written.

    Attributes:
        name: of the file.
        size: bytes of the file as planned.
        content: those that tensors take; the rest is between them.
    """

    name: str
    size: int = 0
    content: int = 0
    _parts: list[tuple[tuple[Region, ...], Chunks]] = field(default_factory=list)

    def plan(self, sizes: Sequence[int], chunks: Chunks) -> tuple[Region, ...]:
        """Makes room for tensors that are written together.

        Args:
            sizes: their bytes.
            chunks: gives, again and again, the next elements of each of them.
        """
        regions = []
        for size in sizes:
            begin = -(-self.size // _ALIGNMENT) * _ALIGNMENT
            regions.append(Region(begin, size))
            self.size = begin + size
            self.content += size
        self._parts.append((tuple(regions), chunks))
        return tuple(regions)

    def tensor(
        self, region: Region, name: str, data_type: int, shape: Sequence[int]
    ) -> onnx.TensorProto:
        """A graph's tensor whose elements are in a region of the file."""
        tensor = onnx.TensorProto(name=name, data_type=data_type, dims=shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (
            ("location", self.name),
            ("offset", region.offset),
            ("length", region.size),
        ):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def write(self, folder: Path, on_bytes: Callable[[int], None]) -> None:
        """Writes all that is planned.

        Args:
            on_bytes: told how many bytes were written, again and again.

        Raises:
            OSError: it can't be written.
        """
        # Without a buffer, which a full disk would make fail again when it is closed.
        with (folder / self.name).open("wb", buffering=0) as out:
            for regions, chunks in self._parts:
                ends = [region.offset for region in regions]
                for arrays in chunks():
                    for i, array in enumerate(arrays):
                        out.seek(ends[i])
                        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                        ends[i] += len(data)
                        on_bytes(len(data))
                        while data:
                            data = data[out.write(data) :]
                assert ends == [region.offset + region.size for region in regions]
            out.truncate(self.size)
            os.fsync(out.fileno())
