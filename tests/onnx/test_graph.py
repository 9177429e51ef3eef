"""Exported graphs of tiny random models against llama.cpp, and against themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gguf_models import remove_layers
from onnx_runner import IN_FLOAT32, Runner, divergence
from steps import ModelAt, TinyPath, assert_same_bits, random_tokens, text_logits

from edge_conflayers.engine.session import LayerMask
from edge_conflayers.onnx.export import TARGETS, Target, export
from edge_conflayers.onnx.weights import Precision

N_LAYER, N_TOKENS, PROMPT = 5, 60, 30
STEPS = [PROMPT, *[1] * 15, 2, 3, 5, 8]
"""Those of ``steps.text_logits``, as far as numbers of tokens go."""
BOUNDS = {"silu": 1e-9, "gelu": 3e-6}
"""KL divergence from llama.cpp in nats, by activation. Both compute in float32, but llama.cpp looks
gelu up in a table of float16. It is at most 2e-11 and 9e-7 here."""

MASKS = {
    "full": LayerMask(),
    "layers": LayerMask.layers([1, 3]),
    "sub-layers": LayerMask(frozenset([0, 4]), frozenset([2, 4])),
    "all": LayerMask.layers(range(N_LAYER)),
}
YARN = (
    ("rope.scaling.type", "yarn"),
    ("rope.scaling.factor", 4.0),
    ("rope.scaling.original_context_length", 4096),
)
LINEAR = (("rope.scaling.type", "linear"), ("rope.scaling.factor", 8.0))
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-biases": ("llama", {"layer_biases": True}),
    "llama-tied": ("llama", {"tied": True}),
    "llama-head-size": ("llama", {"head_dim": 32, "n_head": 6, "n_head_kv": 2}),
    "llama-one-group": ("llama", {"n_head_kv": 4}),
    "llama-factors": ("llama", {"rope_factors": True}),
    "llama-linear": ("llama", {"metadata": LINEAR}),
    "llama-old-linear": ("llama", {"metadata": (("rope.scale_linear", 2.0),)}),
    "llama-no-scaling": (
        "llama",
        {"metadata": (("rope.scaling.type", "none"), ("rope.scaling.factor", 4.0))},
    ),
    "llama-yarn": ("llama", {"metadata": YARN, "head_dim": 64}),
    "llama-odd-vocabulary": ("llama", {"n_vocab": 333}),
    "qwen2": ("qwen2", {}),
    "qwen2-yarn": (
        "qwen2",
        {"metadata": (*YARN, ("rope.freq_base", 1e6), ("rope.scaling.attn_factor", 1.2))},
    ),
    "qwen2-output-bias": ("qwen2", {"output_bias": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma3": ("gemma3", {"sliding_window": 16}),
    "gemma3-tied": ("gemma3", {"sliding_window": 8, "tied": True, "head_dim": 32}),
    "gemma3-cap": ("gemma3", {"metadata": (("final_logit_softcapping", 5.0),)}),
    "gemma3-scaled": ("gemma3", {"sliding_window": 16, "metadata": LINEAR}),
    "gemma3-yarn": ("gemma3", {"sliding_window": 16, "metadata": YARN}),
}

Exported = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_path: TinyPath) -> Exported:
    """A tiny model of ``MODELS`` and its export, each written once."""
    folder = tmp_path_factory.mktemp("exported")
    done: dict[tuple[Any, ...], Path] = {}

    def export_model(
        name: str, target: Target = "ort", precision: Precision = "keep", **settings: Any
    ) -> tuple[Path, Path]:
        arch, more = MODELS[name]
        settings = {"n_layer": N_LAYER, "context_length": 256, **more, **settings}
        key = (name, target, precision, *sorted(settings.items()))
        path = tiny_path(arch, **settings)
        if key not in done:
            done[key] = folder / str(len(done))
            export(path, done[key], target=target, precision=precision)
        return path, done[key]

    return export_model


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_llama_cpps(
    exported: Exported, model_at: ModelAt, name: str, target: Target
) -> None:
    path, folder = exported(name, target)
    model, runner = model_at(path), Runner(folder)
    bound = BOUNDS["gelu" if name.startswith("gemma") else "silu"]
    tokens = random_tokens(model, N_TOKENS)
    seen = []
    for mask in MASKS.values():
        reference = text_logits(model, tokens, PROMPT, mask, n_ctx=256, **IN_FLOAT32)
        found = runner.logits(tokens, STEPS, mask)
        assert divergence(reference, found) < bound
        seen.append(found)
    # The masks matter: what they drop is far more than what is allowed above.
    assert all(divergence(seen[0], other) > 1e-3 for other in seen[1:])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("llama", "qwen2", "qwen3", "gemma3"))
def test_the_checker_takes_them(exported: Exported, name: str, target: Target) -> None:
    _, folder = exported(name, target, quant="q4_1")
    path = folder / "onnx" / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    domains = {each.domain: each.version for each in model.opset_import}
    assert domains == ({"": 24, "com.microsoft": 1} if target == "ort" else {"": 24})


@pytest.mark.parametrize("quant", ("f16", "bf16", "q4_0", "q4_1", "q5_1", "q8_0"))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("qwen2", "gemma3-tied"))
def test_quantized_weights_are_those_of_the_fp32_export(
    exported: Exported, name: str, target: Target, quant: str
) -> None:
    _, kept = exported(name, target, quant=quant)
    _, full = exported(name, target, "fp32", quant=quant)
    tokens = [int(t) for t in np.random.default_rng(1).integers(3, 320, N_TOKENS)]
    for mask in (MASKS["full"], MASKS["sub-layers"]):
        reference = Runner(full).logits(tokens, STEPS, mask)
        assert divergence(reference, Runner(kept, level=0).logits(tokens, STEPS, mask)) < 1e-8


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("llama", "gemma3"))
@pytest.mark.parametrize("quant", ("f32", "q4_1"))
def test_all_on_is_the_default(exported: Exported, name: str, target: Target, quant: str) -> None:
    _, folder = exported(name, target, quant=quant)
    runner = Runner(folder)
    tokens = [int(t) for t in np.random.default_rng(2).integers(3, 320, N_TOKENS)]
    default = runner.logits(tokens, STEPS)
    assert_same_bits(default, runner.logits(tokens, STEPS, LayerMask()))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("llama", "qwen2", "qwen3", "gemma3"))
@pytest.mark.parametrize("quant", ("f32", "q4_1"))
def test_masked_layers_are_as_if_removed(
    exported: Exported, tmp_path: Path, name: str, target: Target, quant: str
) -> None:
    path, folder = exported(name, target, quant=quant)
    tokens = [int(t) for t in np.random.default_rng(3).integers(3, 320, N_TOKENS)]
    for number, layers in enumerate(({0}, {1, 3}, {0, 2, 3}, {4})):
        removed = remove_layers(path, tmp_path / f"removed{number}.gguf", layers)
        export(removed, tmp_path / f"removed{number}", target=target)
        reference = Runner(tmp_path / f"removed{number}").logits(tokens, STEPS)
        masked = Runner(folder).logits(tokens, STEPS, LayerMask.layers(layers))
        assert_same_bits(reference, masked)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", ("llama", "gemma3"))
def test_caches_in_place_give_the_same_bits(exported: Exported, name: str, mask: str) -> None:
    _, folder = exported(name, quant="q8_0")
    runner = Runner(folder)
    tokens = [int(t) for t in np.random.default_rng(4).integers(3, 320, N_TOKENS)]
    growing = runner.logits(tokens, STEPS, MASKS[mask])
    assert_same_bits(growing, runner.logits_in_place(tokens, STEPS, MASKS[mask], positions=100))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("llama", "gemma3"))
def test_masks_that_change(exported: Exported, name: str, target: Target) -> None:
    """What a step left out has keys and values of zero in both kinds of caches."""
    _, folder = exported(name, target)
    runner = Runner(folder)
    tokens = [int(t) for t in np.random.default_rng(7).integers(3, 320, N_TOKENS)]
    masks = (LayerMask(), MASKS["sub-layers"], MASKS["layers"])
    growing = runner.logits(tokens, STEPS, *masks)
    if target == "ort":
        in_place = runner.logits_in_place(tokens, STEPS, *masks, positions=100)
        assert_same_bits(growing, in_place)
    else:
        _, other = exported(name, "ort")
        np.testing.assert_allclose(growing, Runner(other).logits(tokens, STEPS, *masks), atol=1e-3)


@pytest.mark.parametrize("target", TARGETS)
def test_the_last_logits_alone(exported: Exported, target: Target) -> None:
    _, folder = exported("llama", target)
    runner = Runner(folder)
    tokens = list(range(10, 30))
    every = runner.logits(tokens, [20])
    assert every.shape == (20, 320)
    for keep in (1, 3, 20, 99):
        some = runner.logits(tokens, [20], keep=keep)
        assert some.shape == (min(keep, 20), 320)
        np.testing.assert_allclose(some, every[-keep:], rtol=0, atol=1e-4)
    assert_same_bits(every, runner.logits(tokens, [20], keep=0))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("llama", "qwen2", "qwen3", "gemma3"))
def test_float16(exported: Exported, model_at: ModelAt, name: str, target: Target) -> None:
    path, folder = exported(name, target, "fp16")
    model, runner = model_at(path), Runner(folder)
    assert runner.dtype is np.float16
    tokens = random_tokens(model, N_TOKENS)
    for mask in MASKS.values():
        reference = text_logits(model, tokens, PROMPT, mask, n_ctx=256, **IN_FLOAT32)
        found = runner.logits(tokens, STEPS, mask)
        assert found.dtype == np.float32
        assert divergence(reference, found) < 1e-3


@pytest.mark.parametrize("target", TARGETS)
def test_several_texts_in_a_batch(exported: Exported, target: Target) -> None:
    """Of the same length; each has the logits that it has alone."""
    _, folder = exported("qwen2", target)
    runner = Runner(folder)
    texts = np.random.default_rng(5).integers(3, 320, (3, 12))
    _, heads, _, dim = runner.past[0].shape
    feed: dict[str, Any] = {
        "input_ids": texts.astype(np.int64),
        "attention_mask": np.ones((3, 12), dtype=np.int64),
        **{each.name: np.zeros((3, heads, 0, dim), np.float32) for each in runner.past},
    }
    together = runner.session.run(["logits"], feed)[0]
    for text, logits in zip(texts, together, strict=True):
        alone = runner.logits(text.tolist(), [12])
        np.testing.assert_allclose(logits, alone, rtol=0, atol=1e-3)


def test_padding_in_front(exported: Exported) -> None:
    """Standard operators take texts that are padded on the left."""
    _, folder = exported("qwen2", "standard")
    runner = Runner(folder)
    text = np.random.default_rng(6).integers(3, 320, 12).astype(np.int64)
    _, heads, _, dim = runner.past[0].shape
    feed: dict[str, Any] = {
        "input_ids": np.concatenate([[5, 5, 5], text])[None],
        "attention_mask": np.array([[0] * 3 + [1] * 12]),
        **{each.name: np.zeros((1, heads, 0, dim), np.float32) for each in runner.past},
    }
    padded = runner.session.run(["logits"], feed)[0][0, 3:]
    np.testing.assert_allclose(padded, runner.logits(text.tolist(), [12]), rtol=0, atol=1e-3)
