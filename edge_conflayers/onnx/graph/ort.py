"""Operators of ONNX Runtime's own: MatMulNBits, GroupQueryAttention and their like.

Caches may be in place: past and present bound to the same buffer of all positions. They may also
grow, a buffer for each step.
"""

from __future__ import annotations

from onnx import TensorProto

from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.graph.builder import CONTRIB, Graph, Value
from edge_conflayers.onnx.graph.operators import Cache, Inputs
from edge_conflayers.onnx.graph.padding import Padding
from edge_conflayers.onnx.rope import Rope
from edge_conflayers.onnx.weights import Planned

_INT8_ACTIVATIONS = 4
"""``accuracy_level`` at which ONNX Runtime's fast kernels are used: activations are rounded to
eight bits a block, as llama.cpp rounds them."""


class OrtOperators:
    """Operators of the domain com.microsoft. See ``Operators``.

    Args:
        dtype: ONNX type of activations.
    """

    turned = False
    takes_packed = True
    contrib = True

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._sums: dict[tuple[Value, int], Value] = {}
        self._planes: dict[Planned, tuple[Value, ...]] = {}
        self._widened: dict[Planned, Value] = {}

    def prepare(self, graph: Graph, inputs: Inputs, tables: dict[Rope, Cache]) -> None:
        self._tables = tables
        counts = graph.node("ReduceSum", inputs.attention_mask, graph.axes(1), keepdims=0)
        last = graph.node("Sub", counts, graph.number(1, TensorProto.INT64))
        self._last = graph.cast(last, TensorProto.INT32)
        total = graph.node("Shape", inputs.attention_mask, start=1, end=2)
        self._total = graph.cast(graph.reshape(total), TensorProto.INT32)
        self._padding = Padding(graph, total, inputs.past_keys[0], self._dtype)

    def embedding(self, graph: Graph, ids: Value, matrix: Planned) -> Value:
        planes = self._stored(graph, matrix)
        form = matrix.form.format
        if form is None:
            return self._as_activations(graph, matrix, graph.node("Gather", planes[0], ids))
        width = matrix.columns * form.bits // 8
        # The same bytes as the product's, in the shape that is wanted here.
        quants = graph.root.weight(
            f"{matrix.name}.rows", matrix.regions[0], TensorProto.UINT8, (matrix.rows, width)
        )
        rows = graph.node(
            "GatherBlockQuantized",
            *(quants, ids, planes[1]),
            domain=CONTRIB,
            bits=form.bits,
            block_size=form.block,
            gather_axis=0,
            quantize_axis=1,
        )
        if not form.offset:
            return rows
        offsets = graph.node("Unsqueeze", graph.node("Gather", planes[2], ids), graph.axes(-1))
        blocks = graph.reshape(rows, 0, 0, -1, form.block)
        return graph.reshape(graph.node("Add", blocks, offsets), 0, 0, -1)

    def product(self, graph: Graph, x: Value, matrix: Planned) -> Value:
        planes = self._stored(graph, matrix)
        form = matrix.form.format
        if form is None:
            if matrix not in self._widened:
                self._widened[matrix] = self._as_activations(graph.root, matrix, planes[0])
            weights = self._widened[matrix]
            return graph.node("FusedMatMul", x, weights, domain=CONTRIB, transB=1)
        y = graph.node(
            "MatMulNBits",
            *(x, planes[0], planes[1]),
            domain=CONTRIB,
            bits=form.bits,
            block_size=form.block,
            N=matrix.rows,
            K=matrix.columns,
            accuracy_level=_INT8_ACTIVATIONS,
        )
        if not form.offset:
            return y
        sums = self._block_sums(graph, x, form.block)
        rest = graph.node("FusedMatMul", sums, planes[2], domain=CONTRIB, transB=1)
        return graph.node("Add", y, rest)

    def _block_sums(self, graph: Graph, x: Value, block: int) -> Value:
        if (x, block) not in self._sums:
            blocks = graph.reshape(x, 0, 0, -1, block)
            self._sums[x, block] = graph.node("ReduceSum", blocks, graph.axes(-1), keepdims=0)
        return self._sums[x, block]

    def _stored(self, graph: Graph, matrix: Planned) -> tuple[Value, ...]:
        if matrix not in self._planes:
            self._planes[matrix] = tuple(self._defined(graph.root, matrix))
        return self._planes[matrix]

    def _defined(self, root: Graph, matrix: Planned) -> list[Value]:
        name, form = matrix.name, matrix.form.format
        if form is None:
            shape = (matrix.rows, matrix.columns)
            return [root.weight(name, matrix.regions[0], matrix.form.stored, shape)]
        blocks = matrix.columns // form.block
        quants = (matrix.rows, blocks, form.block * form.bits // 8)
        return [
            root.weight(f"{name}.quants", matrix.regions[0], TensorProto.UINT8, quants),
            *(
                root.weight(f"{name}.{part}", region, TensorProto.FLOAT, (matrix.rows, blocks))
                for part, region in zip(("scales", "offsets"), matrix.regions[1:], strict=False)
            ),
        ]

    def _as_activations(self, graph: Graph, matrix: Planned, value: Value) -> Value:
        return value if matrix.form.stored == self._dtype else graph.cast(value, self._dtype)

    def silu_gated(self, graph: Graph, gate: Value, up: Value) -> Value:
        return graph.node("Mul", graph.node("QuickGelu", gate, domain=CONTRIB, alpha=1.0), up)

    def attention(
        self,
        graph: Graph,
        architecture: Architecture,
        layer: int,
        qkv: tuple[Value, ...],
        past: Cache,
    ) -> tuple[Value, Cache]:
        table = self._tables[architecture.ropes[layer]]
        query, key, value = qkv if len(qkv) == 3 else (qkv[0], None, None)
        y, keys, values = graph.nodes(
            "GroupQueryAttention",
            [query, key, value, past.keys, past.values]
            + [self._last, self._total, table.keys, table.values],
            3,
            CONTRIB,
            num_heads=architecture.n_head,
            kv_num_heads=architecture.n_head_kv,
            scale=architecture.attention_scale,
            do_rotary=1,
            local_window_size=architecture.windows[layer] or -1,
        )
        return y, Cache(keys, values)

    def skipped(self, graph: Graph, past: Cache) -> Cache:
        return self._padding.padded(graph, past)
