"""Runs exported graphs on ONNX Runtime, and compares logits with llama.cpp's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from steps import Logits

from edge_conflayers.engine.session import LayerMask

Array = npt.NDArray[Any]

IN_FLOAT32: dict[str, Any] = {"flash_attention": False, "kv_type": "f32"}
"""Settings of a session that computes attention in float32; llama.cpp's flash attention rounds
queries, keys and values to float16 whatever the cache holds."""


class Runner:
    """An exported graph in ONNX Runtime on the CPU.

    Args:
        folder: as ``export`` writes it.
        level: of accuracy, 0 for float32 or 4 for activations of eight bits; None as exported.
    """

    def __init__(self, folder: Path, level: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        path = folder / "onnx" / "model.onnx"
        if level is not None:
            options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(level))
            path = _at_level(path, level)
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.past = [i for i in self.session.get_inputs() if i.name.startswith("past_key_values")]
        self.dtype = np.float16 if "float16" in self.past[0].type else np.float32
        self.n_layer = len(self.past) // 2

    def mask(self, mask: LayerMask) -> Array:
        """A layer mask as the graph takes it."""
        runs = np.ones((self.n_layer, 2), dtype=np.bool_)
        runs[sorted(mask.attention), 0] = False
        runs[sorted(mask.mlp), 1] = False
        return runs

    def logits(
        self,
        tokens: Sequence[int],
        sizes: Sequence[int],
        *masks: LayerMask,
        keep: int | None = None,
    ) -> Logits:
        """Logits of tokens, with caches that grow.

        Args:
            sizes: of the steps; the last is repeated.
            masks: of the steps, one after the other and again; none to leave the input out.
            keep: how many of a step's last logits to compute.
        """
        more = {} if keep is None else {"num_logits_to_keep": np.array(keep, dtype=np.int64)}
        cache = self._empty()
        rows: list[Logits] = []
        begin = 0
        while begin < len(tokens):
            end = min(len(tokens), begin + sizes[min(len(rows), len(sizes) - 1)])
            if masks:
                more["layer_mask"] = self.mask(masks[len(rows) % len(masks)])
            logits, *cache = self.session.run(None, self._feed(tokens, begin, end, cache) | more)
            rows.append(logits[0])
            begin = end
        return np.concatenate(rows)

    def greedy(self, prompt: Sequence[int], n: int, mask: LayerMask) -> Iterator[int]:
        """The likeliest n tokens after a prompt, one by one."""
        tokens, begin, cache = list(prompt), 0, self._empty()
        for _ in range(n):
            feed = self._feed(tokens, begin, len(tokens), cache) | {"layer_mask": self.mask(mask)}
            logits, *cache = self.session.run(None, feed)
            begin = len(tokens)
            tokens.append(int(logits[0, -1].argmax()))
            yield tokens[-1]

    def _empty(self) -> list[Array]:
        _, heads, _, dim = self.past[0].shape
        return [np.zeros((1, heads, 0, dim), self.dtype) for _ in self.past]

    def _feed(
        self, tokens: Sequence[int], begin: int, end: int, cache: Sequence[Array]
    ) -> dict[str, Array]:
        return {
            "input_ids": np.array([tokens[begin:end]], dtype=np.int64),
            "attention_mask": np.ones((1, end), dtype=np.int64),
            **{i.name: value for i, value in zip(self.past, cache, strict=True)},
        }

    def logits_in_place(
        self, tokens: Sequence[int], sizes: Sequence[int], *masks: LayerMask, positions: int
    ) -> Logits:
        """The same with caches of fixed buffers, each past and present at once."""
        _, heads, _, dim = self.past[0].shape
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        cache = [make(np.zeros((1, heads, positions, dim), self.dtype)) for _ in self.past]
        before = [value.data_ptr() for value in cache]
        rows, begin = [], 0
        while begin < len(tokens):
            end = min(len(tokens), begin + sizes[min(len(rows), len(sizes) - 1)])
            binding = self.session.io_binding()
            for name, array in (
                ("input_ids", np.array([tokens[begin:end]], dtype=np.int64)),
                ("attention_mask", np.ones((1, end), dtype=np.int64)),
                ("layer_mask", self.mask(masks[len(rows) % len(masks)])),
            ):
                binding.bind_ortvalue_input(name, make(array))
            for i, value in zip(self.past, cache, strict=True):
                binding.bind_ortvalue_input(i.name, value)
                present = i.name.replace("past_key_values", "present")
                binding.bind_ortvalue_output(present, value)
            binding.bind_output("logits")
            self.session.run_with_iobinding(binding)
            rows.append(binding.get_outputs()[-1].numpy()[0])
            begin = end
        assert [value.data_ptr() for value in cache] == before
        return np.concatenate(rows)


def _at_level(path: Path, level: int) -> Path:
    """A copy of a graph, beside it, with another accuracy level."""
    model = onnx.load(path, load_external_data=False)
    set_level(model.graph, level)
    changed = path.with_name(f"level{level}.onnx")
    onnx.save(model, changed)
    return changed


def set_level(graph: Any, level: int) -> None:
    """Sets the accuracy level of a graph's products, in branches as well."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = level
            elif attribute.name in ("then_branch", "else_branch"):
                set_level(attribute.g, level)


def divergence(reference: Logits, other: Logits) -> float:
    """The mean Kullback-Leibler divergence of next-token distributions, in nats."""

    def logs(logits: Logits) -> npt.NDArray[np.float64]:
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    first, second = logs(reference), logs(other)
    return float((np.exp(first) * (first - second)).sum(axis=-1).mean())
