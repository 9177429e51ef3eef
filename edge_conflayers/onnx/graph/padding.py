"""The cache of a layer that a step leaves out, as long as the other layers' caches."""

from __future__ import annotations

from onnx import TensorProto

from edge_conflayers.onnx.graph.builder import Graph, Value
from edge_conflayers.onnx.graph.operators import Cache


class Padding:
    """Lengthens caches that are shorter than the whole text.

    Args:
        graph: the outermost graph.
        total: positions with this step's, int64 [1].
        past: some layer's keys before this step.
        dtype: ONNX type of keys and values.
    """

    def __init__(self, graph: Graph, total: Value, past: Value, dtype: int) -> None:
        self._dtype = dtype
        length = graph.node("Shape", past, start=2, end=3)
        missing = graph.node("Sub", total, length)
        zero = graph.number(0, TensorProto.INT64)
        # Before and after [batch, heads, positions, dimensions]
        after = graph.node("Max", missing, zero)
        self._pads = graph.node(
            "Concat", graph.axes(0, 0, 0, 0, 0, 0), after, graph.axes(0), axis=0
        )
        self._short = graph.node("Greater", missing, zero)

    def padded(self, graph: Graph, past: Cache) -> Cache:
        """A cache with zeros in the new positions; a cache in place as it is, not even copied."""
        longer, same = graph.branch(), graph.branch()
        for value in (past.keys, past.values):
            longer.output(longer.node("Pad", value, self._pads), self._dtype)
            same.output(same.node("Identity", value), self._dtype)
        keys, values = graph.either(self._short, longer, same, 2)
        return Cache(keys, values)
