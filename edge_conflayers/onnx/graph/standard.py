"""Standard operators alone, of opset 24: every runtime that knows it takes the graph.

Caches grow: the present ones are the past ones with the step's keys and values behind them.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.graph.builder import Graph, Value
from edge_conflayers.onnx.graph.matrices import Matrices
from edge_conflayers.onnx.graph.operators import Cache, Inputs
from edge_conflayers.onnx.graph.padding import Padding
from edge_conflayers.onnx.rope import Rope
from edge_conflayers.onnx.weights import Planned


class StandardOperators:
    """Operators of opset 24. See ``Operators``."""

    turned = True
    takes_packed = False
    contrib = False

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._matrices = Matrices(dtype)

    def check(self, architecture: Architecture) -> None:
        """They take all that ``read_architecture`` gives."""

    def prepare(self, graph: Graph, inputs: Inputs, tables: dict[Rope, Cache]) -> None:
        self._tables = tables
        self._inputs = inputs
        self._masks: dict[int, Value] = {}
        total = graph.node("Shape", inputs.attention_mask, start=1, end=2)
        new = graph.node("Shape", inputs.ids, start=1, end=2)
        self._padding = Padding(graph, total, inputs.past_keys[0], self._dtype)
        # Positions count the tokens that are there; padding before them has none.
        counts = graph.node("CumSum", inputs.attention_mask, graph.number(1, TensorProto.INT64))
        places = graph.node("Sub", counts, graph.number(1, TensorProto.INT64))
        places = graph.node("Max", places, graph.number(0, TensorProto.INT64))
        begin = graph.node("Neg", new)
        end = graph.axes(np.iinfo(np.int64).max)
        self._positions = graph.node("Slice", places, begin, end, graph.axes(1))
        # What each new token sees: bool [batch_size, 1, sequence_length, total_sequence_length]
        zero, one = (graph.number(n, TensorProto.INT64) for n in (0, 1))
        self._seen = graph.node("Range", zero, graph.reshape(total), one)
        seeing = graph.node("Slice", self._seen, begin, end, graph.axes(0))
        self._seeing = graph.node("Unsqueeze", seeing, graph.axes(1))
        there = graph.cast(inputs.attention_mask, TensorProto.BOOL)
        past = graph.node("LessOrEqual", self._seen, self._seeing)
        self._masks[0] = graph.node("And", past, graph.node("Unsqueeze", there, graph.axes(1, 2)))

    def _mask(self, root: Graph, window: int) -> Value:
        if window not in self._masks:
            distance = root.node("Sub", self._seeing, self._seen)
            near = root.node("Less", distance, root.number(window, TensorProto.INT64))
            self._masks[window] = root.node("And", self._masks[0], near)
        return self._masks[window]

    def embedding(self, graph: Graph, ids: Value, matrix: Planned) -> Value:
        form = matrix.form.format
        shape: tuple[int, ...] = ()
        if form is not None and not matrix.form.turned:
            shape = (matrix.rows, matrix.columns * form.bits // 8)
        planes = self._matrices.planes(graph, matrix, *shape)
        quants, *parts = (self._taken(graph, ids, matrix, plane) for plane in planes)
        if form is None:
            return self._matrices.as_activations(graph, matrix, quants)
        if form.bits == 4:
            quants = self._unpacked(graph, quants)
        values = graph.cast(quants, TensorProto.FLOAT)
        if not matrix.form.turned:
            values = graph.node("Sub", values, graph.number(form.zero, TensorProto.FLOAT))
        scale, *offset = (graph.node("Unsqueeze", part, graph.axes(-1)) for part in parts)
        values = graph.node("Mul", graph.reshape(values, 0, 0, -1, form.block), scale)
        for each in offset:
            values = graph.node("Add", values, each)
        return graph.reshape(values, 0, 0, -1)

    def _taken(self, graph: Graph, ids: Value, matrix: Planned, plane: Value) -> Value:
        """The rows that tokens name, of a matrix kept by rows or by columns."""
        if not matrix.form.turned:
            return graph.node("Gather", plane, ids)
        columns = graph.node("Gather", plane, ids, axis=1)
        return graph.node("Transpose", columns, perm=[1, 2, 0])

    def _unpacked(self, graph: Graph, packed: Value) -> Value:
        """Quants of four bits, two a byte along the last axis."""
        low = graph.node("BitwiseAnd", packed, graph.number(15, TensorProto.UINT8))
        high = graph.node("BitShift", packed, graph.number(4, TensorProto.UINT8), direction="RIGHT")
        pairs = [graph.node("Unsqueeze", half, graph.axes(-1)) for half in (low, high)]
        return graph.reshape(graph.node("Concat", *pairs, axis=-1), 0, 0, -1)

    def product(self, graph: Graph, x: Value, matrix: Planned) -> Value:
        form = matrix.form.format
        if form is None:
            return graph.node("MatMul", x, self._matrices.floats(graph, matrix))
        # In the graph where they are used: ONNX Runtime doesn't fuse them with the product
        # otherwise, and then fails.
        quants, scales, *offsets = self._matrices.planes(graph, matrix)
        weights = graph.node("DequantizeLinear", quants, scales, axis=0, block_size=form.block)
        y = graph.node("MatMul", x, weights)
        for each in offsets:
            sums = self._matrices.block_sums(graph, x, form.block)
            y = graph.node("Add", y, graph.node("MatMul", sums, each))
        return y

    def silu_gated(self, graph: Graph, gate: Value, up: Value) -> Value:
        return graph.node("Mul", graph.node("Mul", gate, graph.node("Sigmoid", gate)), up)

    def attention(
        self,
        graph: Graph,
        architecture: Architecture,
        layer: int,
        qkv: tuple[Value, ...],
        past: Cache,
    ) -> tuple[Value, Cache]:
        table = self._tables[architecture.ropes[layer]]
        query, key = (
            graph.node(
                *("RotaryEmbedding", value, table.keys, table.values, self._positions),
                num_heads=heads,
            )
            for value, heads in zip(
                qkv, (architecture.n_head, architecture.n_head_kv), strict=False
            )
        )
        mask = self._mask(graph.root, architecture.windows[layer])
        y, keys, values = graph.nodes(
            "Attention",
            [query, key, qkv[2], mask, past.keys, past.values],
            3,
            q_num_heads=architecture.n_head,
            kv_num_heads=architecture.n_head_kv,
            scale=architecture.attention_scale,
        )
        return y, Cache(keys, values)

    def skipped(self, graph: Graph, past: Cache) -> Cache:
        return self._padding.padded(graph, past)
