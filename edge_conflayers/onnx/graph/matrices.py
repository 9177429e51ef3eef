"""Matrices as a graph's tensors, and what products with quantized ones share."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edge_conflayers.onnx.graph.builder import Graph, Value
from edge_conflayers.onnx.weights import Planned


class Matrices:
    """Gives each matrix's tensors, defined once.

    Args:
        dtype: ONNX type of activations.
    """

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._defined: dict[tuple[Graph, Planned, tuple[int, ...]], tuple[Value, ...]] = {}
        self._widened: dict[Planned, Value] = {}
        self._sums: dict[tuple[Value, int], Value] = {}

    def planes(self, graph: Graph, matrix: Planned, *shape: int) -> tuple[Value, ...]:
        """The parts of a matrix: its elements, or else quants, scales and perhaps offsets.

        Args:
            graph: that they are defined in.
            shape: of the elements or quants, if not rows and columns; the bytes are the same.
        """
        key = (graph, matrix, shape)
        if key not in self._defined:
            self._defined[key] = tuple(_defined(graph, matrix, shape))
        return self._defined[key]

    def floats(self, graph: Graph, matrix: Planned) -> Value:
        """A matrix that is not quantized, in the type of activations."""
        if matrix not in self._widened:
            (elements,) = self.planes(graph.root, matrix)
            self._widened[matrix] = self.as_activations(graph.root, matrix, elements)
        return self._widened[matrix]

    def as_activations(self, graph: Graph, matrix: Planned, elements: Value) -> Value:
        """Elements of a matrix that is not quantized, in the type of activations."""
        return elements if matrix.form.stored == self._dtype else graph.cast(elements, self._dtype)

    def block_sums(self, graph: Graph, x: Value, block: int) -> Value:
        """Sums over the columns that share an offset: [batch_size, sequence_length, blocks]."""
        if (x, block) not in self._sums:
            blocks = graph.reshape(x, 0, 0, -1, block)
            self._sums[x, block] = graph.node("ReduceSum", blocks, graph.axes(-1), keepdims=0)
        return self._sums[x, block]


def _defined(graph: Graph, matrix: Planned, shape: tuple[int, ...]) -> Iterator[Value]:
    form, name = matrix.form, matrix.name
    natural = (matrix.columns, matrix.rows) if form.turned else (matrix.rows, matrix.columns)
    if form.format is None:
        yield graph.weight(name, matrix.regions[0], form.stored, shape or natural)
        return
    label = f"{name}.quants" if not shape else f"{name}.quants.{len(shape)}d"
    yield graph.weight(label, matrix.regions[0], form.stored, shape or natural)
    blocks = matrix.columns // form.format.block
    parts = (blocks, matrix.rows) if form.turned else (matrix.rows, blocks)
    for part, region in zip(("scales", "offsets"), matrix.regions[1:], strict=False):
        label = f"{name}.{part}" if not shape else f"{name}.{part}.{len(shape)}d"
        yield graph.weight(label, region, TensorProto.FLOAT, parts)
