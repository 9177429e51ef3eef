"""Operators of ONNX Runtime's own: MatMulNBits, GroupQueryAttention and their like.

Caches may be in place: past and present bound to the same buffer of all positions. They may also
grow, a buffer for each step.

With the input ``double_attention``, which is off by default, attention sees every token twice, the
second time behind all others, and what that gives is dropped; the cache then has to have room for
it. GroupQueryAttention computes a single row on a CPU by another kernel than two and more, in other
bits; everything else here gives a row the same bits alone and among others (onnxruntime 1.32, x86).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.graph.builder import CONTRIB, Graph, Value
from edge_conflayers.onnx.graph.matrices import Matrices
from edge_conflayers.onnx.graph.operators import Cache, Inputs
from edge_conflayers.onnx.graph.padding import Padding
from edge_conflayers.onnx.rope import Rope
from edge_conflayers.onnx.weights import Planned

_HEAD_SIZES = 16  # GroupQueryAttention with rotation takes multiples of it.
_INT8_ACTIVATIONS = 4
"""``accuracy_level`` at which ONNX Runtime's fast kernels are used: activations are rounded to
eight bits a block, as llama.cpp rounds them."""


class OrtOperators:
    """Operators of the domain com.microsoft. See ``Operators``."""

    turned = False
    takes_packed = True
    contrib = True

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._matrices = Matrices(dtype)

    def check(self, architecture: Architecture) -> None:
        if architecture.head_dim % _HEAD_SIZES:
            raise BadInput(
                f"heads of {architecture.head_dim} dimensions can't be exported for ONNX Runtime's"
                f" own operators, which take multiples of {_HEAD_SIZES};"
                " export with `--target standard`"
            )

    def prepare(self, graph: Graph, inputs: Inputs, tables: dict[Rope, Cache]) -> None:
        self._tables = tables
        counts = graph.node("ReduceSum", inputs.attention_mask, graph.axes(1), keepdims=0)
        last = graph.node("Sub", counts, graph.number(1, TensorProto.INT64))
        self._last = graph.cast(last, TensorProto.INT32)
        total = graph.node("Shape", inputs.attention_mask, start=1, end=2)
        self._total = graph.cast(graph.reshape(total), TensorProto.INT32)
        self._doubled = graph.input(
            "double_attention", TensorProto.BOOL, (), default=np.array(False)
        )
        self._new = graph.node("Shape", inputs.ids, start=1, end=2)
        new = graph.cast(self._new, TensorProto.INT32)
        self._last_doubled = graph.node("Add", self._last, new)
        self._total_doubled = graph.node("Add", self._total, graph.reshape(new))
        self._padding = Padding(graph, total, inputs.past_keys[0], self._dtype)

    def embedding(self, graph: Graph, ids: Value, matrix: Planned) -> Value:
        form = matrix.form.format
        if form is None:
            (elements,) = self._matrices.planes(graph, matrix)
            rows = graph.node("Gather", elements, ids)
            return self._matrices.as_activations(graph, matrix, rows)
        quants, scales, *offsets = self._matrices.planes(
            graph, matrix, matrix.rows, matrix.columns * form.bits // 8
        )
        rows = graph.node(
            "GatherBlockQuantized",
            *(quants, ids, scales),
            domain=CONTRIB,
            bits=form.bits,
            block_size=form.block,
            gather_axis=0,
            quantize_axis=1,
        )
        for each in offsets:
            of_blocks = graph.node("Unsqueeze", graph.node("Gather", each, ids), graph.axes(-1))
            blocks = graph.reshape(rows, 0, 0, -1, form.block)
            rows = graph.reshape(graph.node("Add", blocks, of_blocks), 0, 0, -1)
        return rows

    def product(self, graph: Graph, x: Value, matrix: Planned) -> Value:
        form = matrix.form.format
        if form is None:
            return self._product(graph, x, self._matrices.floats(graph, matrix))
        shape = (matrix.rows, matrix.columns // form.block, form.block * form.bits // 8)
        quants, scales, *offsets = self._matrices.planes(graph.root, matrix, *shape)
        y = graph.node(
            "MatMulNBits",
            *(x, quants, scales),
            domain=CONTRIB,
            bits=form.bits,
            block_size=form.block,
            N=matrix.rows,
            K=matrix.columns,
            accuracy_level=_INT8_ACTIVATIONS,
        )
        for each in offsets:
            sums = self._matrices.block_sums(graph, x, form.block)
            y = graph.node("Add", y, self._product(graph, sums, each))
        return y

    def _product(self, graph: Graph, x: Value, matrix: Value) -> Value:
        return graph.node("FusedMatMul", x, matrix, domain=CONTRIB, transB=1)

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
        def attend(
            branch: Graph, qkv: Sequence[Value], last: Value, total: Value
        ) -> tuple[Value, ...]:
            query, key, value = qkv if len(qkv) == 3 else (qkv[0], None, None)
            return branch.nodes(
                "GroupQueryAttention",
                [query, key, value, *past, last, total, *self._tables[architecture.ropes[layer]]],
                3,
                CONTRIB,
                num_heads=architecture.n_head,
                kv_num_heads=architecture.n_head_kv,
                scale=architecture.attention_scale,
                do_rotary=1,
                local_window_size=architecture.windows[layer] or -1,
            )

        doubled, as_they_are = graph.branch(), graph.branch()
        twice = [doubled.node("Concat", each, each, axis=1) for each in qkv]
        y, *cache = attend(doubled, twice, self._last_doubled, self._total_doubled)
        y = doubled.node("Slice", y, doubled.axes(0), self._new, doubled.axes(1))
        for branch, outputs in (
            (doubled, (y, *cache)),
            (as_they_are, attend(as_they_are, qkv, self._last, self._total)),
        ):
            for output in outputs:
                branch.output(output, self._dtype)
        seen, keys, values = graph.either(self._doubled, doubled, as_they_are, 3)
        return seen, Cache(keys, values)

    def skipped(self, graph: Graph, past: Cache) -> Cache:
        return self._padding.padded(graph, past)
