"""A whole model as a graph: embedding, layers, head, and the mask over the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.folder import METADATA_PREFIX
from edge_conflayers.onnx.graph.builder import CONTRIB, Graph, Value
from edge_conflayers.onnx.graph.operators import Cache, Inputs, Operators
from edge_conflayers.onnx.rope import Rope
from edge_conflayers.onnx.tensors import Tensors

OPSET = 24
_IR_VERSION = 11
"""Of opset 24's first release of onnx (1.19)."""


class ModelGraph:
    """Builds a model's graph.

    Args:
        architecture: what the layers compute.
        tensors: the model's weights.
        operators: the target's.
        dtype: ONNX type of activations, keys and values. The residual stream is float32 always:
            Gemma's is beyond float16.
    """

    def __init__(
        self, architecture: Architecture, tensors: Tensors, operators: Operators, dtype: int
    ) -> None:
        self._architecture = architecture
        self._tensors = tensors
        self._operators = operators
        self._dtype = dtype
        self._numpy = helper.tensor_dtype_to_np_dtype(dtype)

    def build(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The model, its weights planned in the tensors' file."""
        graph = Graph(self._tensors.data)
        inputs, mask, keep = self._inputs(graph)
        logits = ("batch_size", "kept_length", self._architecture.n_vocab)
        graph.output(Value("logits"), TensorProto.FLOAT, logits)
        tables = self._tables(graph)
        operators, wanted = self._operators, self._architecture
        operators.prepare(graph, inputs, tables)
        flags = self._flags(graph, mask)
        x = operators.embedding(graph, inputs.ids, self._tensors.embedding())
        x = self._as(graph, x, TensorProto.FLOAT)
        if wanted.embedding_scale != 1:
            x = graph.node("Mul", x, graph.number(wanted.embedding_scale, TensorProto.FLOAT))
        for layer in range(wanted.n_layer):
            past = Cache(inputs.past_keys[layer], inputs.past_values[layer])
            x = self._attention(graph, layer, flags[2 * layer], x, past)
            x = self._mlp(graph, layer, flags[2 * layer + 1], x)
        self._head(graph, x, keep)
        return self._model(graph, metadata)

    def _inputs(self, graph: Graph) -> tuple[Inputs, Value, Value]:
        wanted = self._architecture
        ids = graph.input("input_ids", TensorProto.INT64, ("batch_size", "sequence_length"))
        attention_mask = graph.input(
            "attention_mask", TensorProto.INT64, ("batch_size", "total_sequence_length")
        )
        shape = ("batch_size", wanted.n_head_kv, "past_sequence_length", wanted.head_dim)
        past = [
            graph.input(f"past_key_values.{layer}.{part}", self._dtype, shape)
            for layer in range(wanted.n_layer)
            for part in ("key", "value")
        ]
        mask = graph.input(
            *("layer_mask", TensorProto.BOOL, (wanted.n_layer, 2)),
            default=np.ones((wanted.n_layer, 2), dtype=np.bool_),
        )
        keep = graph.input(
            "num_logits_to_keep", TensorProto.INT64, (), default=np.array(0, dtype=np.int64)
        )
        inputs = Inputs(ids, attention_mask, tuple(past[0::2]), tuple(past[1::2]))
        return inputs, mask, keep

    def _tables(self, graph: Graph) -> dict[Rope, Cache]:
        half = (self._architecture.n_ctx_train, self._architecture.head_dim // 2)
        tables: dict[Rope, Cache] = {}
        for rope in dict.fromkeys(self._architecture.ropes):
            name = f"rope_{len(tables)}"
            regions = self._tensors.rope(rope, self._architecture.n_ctx_train)
            cosines, sines = (
                graph.weight(f"{name}.{part}", region, self._dtype, half)
                for part, region in zip(("cos", "sin"), regions, strict=True)
            )
            tables[rope] = Cache(cosines, sines)
        return tables

    def _flags(self, graph: Graph, mask: Value) -> tuple[Value, ...]:
        """For each sub-layer, whether it runs: bool [1]."""
        n = 2 * self._architecture.n_layer
        return graph.nodes("Split", [graph.reshape(mask, n)], n, num_outputs=n)

    def _masked(
        self,
        graph: Graph,
        flag: Value,
        name: str,
        run: Callable[[Graph], Sequence[Value]],
        skip: Callable[[Graph], Sequence[Value]],
        outputs: int | Sequence[str],
    ) -> tuple[Value, ...]:
        """A sub-layer that runs where its flag is set."""
        with graph.scope(name):
            on, off = graph.branch(), graph.branch()
            for branch, build in ((on, run), (off, skip)):
                x, *cache = build(branch)
                branch.output(x, TensorProto.FLOAT)
                for value in cache:
                    branch.output(value, self._dtype)
            return graph.either(flag, on, off, outputs)

    def _attention(self, graph: Graph, layer: int, flag: Value, x: Value, past: Cache) -> Value:
        def run(branch: Graph) -> Sequence[Value]:
            h = self._normed(branch, x, f"blk.{layer}.attn_norm")
            seen, cache = self._operators.attention(
                branch, self._architecture, layer, self._qkv(branch, layer, h), past
            )
            y = self._linear(branch, seen, f"blk.{layer}.attn_output")
            return self._added(branch, x, y, f"blk.{layer}.post_attention_norm"), *cache

        def skip(branch: Graph) -> Sequence[Value]:
            return branch.node("Identity", x), *self._operators.skipped(branch, past)

        presents = (f"present.{layer}.key", f"present.{layer}.value")
        name = f"layer.{layer}.attention"
        after, *cache = self._masked(graph, flag, name, run, skip, (name, *presents))
        shape = ("batch_size", self._architecture.n_head_kv, "total_sequence_length")
        for value in cache:
            graph.output(value, self._dtype, (*shape, self._architecture.head_dim))
        return after

    def _qkv(self, graph: Graph, layer: int, h: Value) -> tuple[Value, ...]:
        """Queries, keys and values, normalized but not rotated; or all in one value."""
        wanted, names = self._architecture, [f"blk.{layer}.attn_{part}" for part in "qkv"]
        sizes = [n * wanted.head_dim for n in (wanted.n_head, wanted.n_head_kv, wanted.n_head_kv)]
        if self._tensors.alike(names):
            together = self._linear(graph, h, *names)
            if self._operators.takes_packed and not wanted.qk_norm:
                return (together,)
            qkv = graph.nodes("Split", [together, graph.axes(*sizes)], 3, axis=-1)
        else:
            qkv = tuple(self._linear(graph, h, name) for name in names)
        if not wanted.qk_norm:
            return qkv
        q, k = (
            self._head_norm(graph, value, f"{name}_norm")
            for value, name in zip(qkv, names[:2], strict=False)
        )
        return q, k, qkv[2]

    def _head_norm(self, graph: Graph, x: Value, name: str) -> Value:
        heads = graph.reshape(x, 0, 0, -1, self._architecture.head_dim)
        return graph.reshape(self._norm(graph, heads, name, self._numpy), 0, 0, -1)

    def _mlp(self, graph: Graph, layer: int, flag: Value, x: Value) -> Value:
        def run(branch: Graph) -> Sequence[Value]:
            h = self._normed(branch, x, f"blk.{layer}.ffn_norm")
            names = [f"blk.{layer}.ffn_gate", f"blk.{layer}.ffn_up"]
            if self._tensors.alike(names):
                together = self._linear(branch, h, *names)
                gate, up = branch.nodes("Split", [together], 2, axis=-1, num_outputs=2)
            else:
                gate, up = (self._linear(branch, h, name) for name in names)
            if self._architecture.activation == "silu":
                hidden = self._operators.silu_gated(branch, gate, up)
            else:
                hidden = branch.node("Mul", branch.node("Gelu", gate, approximate="tanh"), up)
            y = self._linear(branch, hidden, f"blk.{layer}.ffn_down")
            return (self._added(branch, x, y, f"blk.{layer}.post_ffw_norm"),)

        def skip(branch: Graph) -> Sequence[Value]:
            return (branch.node("Identity", x),)

        name = f"layer.{layer}.mlp"
        return self._masked(graph, flag, name, run, skip, (name,))[0]

    def _added(self, graph: Graph, x: Value, y: Value, post_norm: str) -> Value:
        """The residual stream with a sub-layer's output."""
        y = self._as(graph, y, TensorProto.FLOAT)
        if self._architecture.post_norm:
            y = self._norm(graph, y, post_norm)
        return graph.node("Add", x, y)

    def _head(self, graph: Graph, x: Value, keep: Value) -> None:
        # The last ones: from -keep on, which for 0 is the beginning.
        begin = graph.reshape(graph.node("Neg", keep), 1)
        end = graph.axes(np.iinfo(np.int64).max)
        kept = graph.node("Slice", x, begin, end, graph.axes(1))
        h = self._normed(graph, kept, "output_norm")
        logits = self._as(graph, self._linear(graph, h, self._tensors.head), TensorProto.FLOAT)
        if cap := self._architecture.logit_cap:
            number = graph.number(cap, TensorProto.FLOAT)
            logits = graph.node(
                "Mul", graph.node("Tanh", graph.node("Div", logits, number)), number
            )
        graph.nodes("Identity", [logits], ("logits",))

    def _normed(self, graph: Graph, x: Value, name: str) -> Value:
        """The normalized residual stream, as activations."""
        return self._as(graph, self._norm(graph, x, name), self._dtype)

    def _as(self, graph: Graph, x: Value, dtype: int) -> Value:
        """Activations as the residual stream, or the other way round."""
        return x if self._dtype == TensorProto.FLOAT else graph.cast(x, dtype)

    def _norm(self, graph: Graph, x: Value, name: str, dtype: Any = np.float32) -> Value:
        weights = graph.constant(self._tensors.vector(f"{name}.weight").astype(dtype))
        return graph.node(
            "RMSNormalization", x, weights, axis=-1, epsilon=self._architecture.epsilon
        )

    def _linear(self, graph: Graph, x: Value, *names: str) -> Value:
        """What one matrix, or several of the same kind one below the other, make of vectors."""
        y = self._operators.product(graph, x, self._tensors.matrix(*names))
        bias = self._tensors.bias(*names)
        if bias is None:
            return y
        return graph.node("Add", y, graph.constant(bias.astype(self._numpy)))

    def _model(self, graph: Graph, metadata: Mapping[str, str]) -> onnx.ModelProto:
        domains = [helper.make_opsetid("", OPSET)]
        if self._operators.contrib:
            domains.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(
            graph.proto("model"),
            opset_imports=domains,
            ir_version=_IR_VERSION,
            producer_name="edge-conflayers",
            producer_version=metadata[f"{METADATA_PREFIX}version"],
        )
        helper.set_model_props(model, dict(metadata))
        return model
