"""KV caches of a graph: in place where its operators allow that, else growing by copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnxruntime import OrtValue

from edge_conflayers.onnx.model import OnnxModel
from edge_conflayers.onnx.runtime import device_of

_Array = npt.NDArray[Any]
Saved = Sequence[_Array]

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PARTS = ("key", "value")


class Cache(Protocol):
    """Keys and values of every layer, at positions from 0 on. Whoever uses it counts the positions
    that mean something; what is behind them is overwritten."""

    def bind(self, binding: Any, begin: int, n: int) -> None:
        """Before a step over ``n`` tokens from position ``begin`` on: what it reads and writes.

        Args:
            binding: an ``onnxruntime.IOBinding``.
        """
        ...

    def stepped(self) -> None:
        """After the step."""
        ...

    def saved(self, begin: int, end: int) -> Saved:
        """What positions from ``begin`` to ``end`` hold, for ``restore``."""
        ...

    def restore(self, saved: Saved, begin: int) -> None:
        """Puts back what was saved from ``begin`` on; what is behind it is gone."""
        ...

    def fill(self, length: int) -> None:
        """Holds random numbers at as many positions, as if a text had been read."""
        ...


def cache_for(model: OnnxModel, n_ctx: int) -> Cache:
    """A cache of as many positions, in place if the graph's operators write in place."""
    shape = (1, model.head_shape[0], n_ctx, model.head_shape[1])
    dtype = _DTYPES[model.cache_type]
    if model.target != "ort":
        return GrowingCache(model.n_layer, shape, dtype)
    return InPlaceCache(model.n_layer, shape, dtype, device_of(model.provider))


def _random(n: int, shape: Sequence[int]) -> list[_Array]:
    numbers = np.random.default_rng(0)
    return [numbers.standard_normal(shape, dtype=np.float32) for _ in range(n)]


def _names(kind: str, n_layer: int) -> list[str]:
    return [f"{kind}.{layer}.{part}" for layer in range(n_layer) for part in _PARTS]


class InPlaceCache:
    """Buffers that the graph reads as the past and writes as the present, at no copy.

    Args:
        shape: of each buffer, [1, heads, positions, head_dim].
        device: where they are, as ONNX Runtime calls it.
    """

    def __init__(self, n_layer: int, shape: Sequence[int], dtype: Any, device: str) -> None:
        self._device = device
        self._past, self._present = _names("past_key_values", n_layer), _names("present", n_layer)
        # Zeros that the system hands out page by page, as they are first written.
        self._arrays = [np.zeros(shape, dtype) for _ in self._past]
        self._values = [OrtValue.ortvalue_from_numpy(array, device) for array in self._arrays]
        self._bound: Any = None

    def bind(self, binding: Any, begin: int, n: int) -> None:
        if self._bound is binding:
            return
        self._bound = binding
        for past, present, value in zip(self._past, self._present, self._values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)

    def stepped(self) -> None:
        """There is nothing to do."""

    def saved(self, begin: int, end: int) -> Saved:
        if self._device != "cpu" and begin < end:
            self._arrays = [value.numpy() for value in self._values]  # a copy of all of it
        return [array[:, :, begin:end].copy() for array in self._arrays]

    def fill(self, length: int) -> None:
        batch, heads, _, width = self._arrays[0].shape
        self.restore(_random(len(self._arrays), (batch, heads, length, width)), 0)

    def restore(self, saved: Saved, begin: int) -> None:
        for array, part in zip(self._arrays, saved, strict=True):
            array[:, :, begin : begin + part.shape[2]] = part
        if self._device != "cpu" and saved[0].shape[2] > 0:
            for array, value in zip(self._arrays, self._values, strict=True):
                value.update_inplace(array)


class GrowingCache:
    """Arrays as long as the text, of which every step makes new, longer ones: standard operators
    know no others. Each step copies the cache, and once more where it has become shorter."""

    def __init__(self, n_layer: int, shape: Sequence[int], dtype: Any) -> None:
        self._past, self._present = _names("past_key_values", n_layer), _names("present", n_layer)
        self._shape, self._dtype = tuple(shape), dtype
        self._arrays = [self._new(0) for _ in self._past]
        self._next: list[_Array] = []

    def _new(self, length: int) -> _Array:
        batch, heads, _, width = self._shape
        return np.empty((batch, heads, length, width), self._dtype)

    def bind(self, binding: Any, begin: int, n: int) -> None:
        if self._arrays[0].shape[2] != begin:
            self._arrays = [np.ascontiguousarray(each[:, :, :begin]) for each in self._arrays]
        self._next = [self._new(begin + n) for _ in self._arrays]
        for name, array in zip(self._past, self._arrays, strict=True):
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        for name, array in zip(self._present, self._next, strict=True):
            binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))

    def stepped(self) -> None:
        self._arrays, self._next = self._next, []

    def fill(self, length: int) -> None:
        batch, heads, _, width = self._shape
        arrays = _random(len(self._past), (batch, heads, length, width))
        self._arrays = [array.astype(self._dtype) for array in arrays]

    def saved(self, begin: int, end: int) -> Saved:
        return self._arrays  # which no step changes

    def restore(self, saved: Saved, begin: int) -> None:
        self._arrays = list(saved)
