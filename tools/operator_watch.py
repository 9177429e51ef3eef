"""Watches the operators of a graph: are they the same for a batch as for its tokens one by one?

ggml calls back after each node. The nodes of one-token graphs are recorded; then each node of the
batched graph is compared with them and, where it differs, overwritten with the one-token result, so
that every operator is judged on equal inputs.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Nodes that compute nothing, and those whose result is a view of the whole KV cache.
_SKIPPED = {"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "SET_ROWS", "CPY"}
_ITEM = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class _Tensor(ctypes.Structure):
    """struct ggml_tensor of ggml.h."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.POINTER(_Tensor)),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


@dataclass
class Cause:
    """An operator whose result depends on the batch size although its inputs are equal.

    Attributes:
        nodes: nodes that differ.
        values: values that differ in them.
        largest: largest difference of a float32 value.
        example: name of one such node.
    """

    nodes: int = 0
    values: int = 0
    largest: float = 0.0
    example: str = ""


@dataclass(frozen=True)
class _Node:
    """A recorded node: its operator, name and bits."""

    key: str
    name: str
    bits: npt.NDArray[Any]


class OperatorWatch:
    """ggml's evaluation callback: records every node, or compares it with recorded ones.

    Attributes:
        mode: "off", "record" or "compare".
        single: nodes of each recorded one-token step.
        found: operators that differ, by operator and operand types.
    """

    def __init__(self, llama: Any) -> None:
        self._library = llama._lib
        for name in ("ggml_op_name", "ggml_type_name"):
            getattr(self._library, name).restype = ctypes.c_char_p
            getattr(self._library, name).argtypes = [ctypes.c_int]
        self.callback = llama.ggml_backend_sched_eval_callback(self._call)
        self.mode = "off"
        self.single: list[list[_Node]] = []
        self.found: dict[str, Cause] = {}
        self._index = 0

    def begin(self, mode: str) -> None:
        """Starts watching the next step."""
        self.mode = mode
        self._index = 0
        if mode == "record":
            self.single.append([])

    def _call(self, address: int, ask: bool, _data: Any) -> bool:
        tensor = ctypes.cast(address, ctypes.POINTER(_Tensor)).contents
        op = self._op(tensor)
        if ask:
            return self.mode != "off" and op not in _SKIPPED
        bits = _bits(tensor)
        if self.mode == "record":
            self.single[-1].append(_Node(op, tensor.name.decode(), bits.copy()))
        else:
            self._compare(tensor, op, bits)
        self._index += 1
        return True

    def _compare(self, tensor: _Tensor, op: str, bits: npt.NDArray[Any]) -> None:
        singles = [nodes[self._index] for nodes in self.single]
        if singles[0].key != op:
            raise RuntimeError(f"the graphs differ at {self._index}: {singles[0].key} and {op}")
        n = len(singles)
        shapes = singles[0].bits.shape, bits.shape
        axes = [i for i, (one, many) in enumerate(zip(*shapes, strict=True)) if one != many]
        if len(axes) != 1 or shapes[1][axes[0]] != n * shapes[0][axes[0]]:
            raise RuntimeError(f"{op} {singles[0].name} has no token axis: {shapes}")
        expected = np.concatenate([node.bits for node in singles], axis=axes[0])
        different = bits != expected
        if different.any():
            cause = self.found.setdefault(self._describe(tensor, op), Cause())
            cause.nodes += 1
            cause.values += int(different.sum())
            cause.example = cause.example or singles[0].name
            if bits.dtype == np.uint32 and tensor.type == 0:
                gap = np.abs(bits.view(np.float32) - expected.view(np.float32))
                cause.largest = max(cause.largest, float(np.nanmax(gap)))
            bits[...] = expected

    def _op(self, tensor: _Tensor) -> str:
        return str(self._library.ggml_op_name(tensor.op).decode())

    def _describe(self, tensor: _Tensor, op: str) -> str:
        operands = [
            str(self._library.ggml_type_name(source.contents.type).decode())
            for source in tensor.src
            if source
        ]
        return f"{op}({', '.join(operands)})"


def _bits(tensor: _Tensor) -> npt.NDArray[Any]:
    """A tensor's memory as unsigned integers in numpy's order of axes, not copied."""
    kind = _ITEM[tensor.nb[0]]
    span = 1 + sum((tensor.ne[i] - 1) * tensor.nb[i] // tensor.nb[0] for i in range(4))
    flat = np.ctypeslib.as_array(
        ctypes.cast(tensor.data, ctypes.POINTER(np.ctypeslib.as_ctypes_type(kind))), shape=(span,)
    )
    return np.lib.stride_tricks.as_strided(
        flat, shape=tuple(tensor.ne)[::-1], strides=tuple(tensor.nb)[::-1]
    )
