"""SmolLM2 exported, against llama.cpp on the same weights as float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_models import dequantized
from onnx_runner import IN_FLOAT32, Runner, divergence
from steps import Logits, ModelAt, RealModel, open_session, step, text_logits

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.onnx.export import TARGETS, Target, export
from edge_conflayers.onnx.weights import Precision

pytestmark = pytest.mark.model

MASKS = {
    "full": LayerMask(),
    "layers": LayerMask.layers(range(3, 27, 4)),
    "sub-layers": LayerMask(frozenset(range(5, 28, 3)), frozenset((7, 12, 20))),
}
TEXT = (
    "The river had risen in the night, and by morning the lower meadow was a lake. Anna counted"
    " the sheep from the wall: forty-one, forty-two, and the old ram that nobody could drive."
    " def merge(a, b):\n    out = []\n    while a and b:\n        out.append((a if a[0] < b[0] else"
    " b).pop(0))\n    return out + a + b\n\nIn 1905 Einstein published four papers. The first, on"
    " the photoelectric effect, won him the Nobel Prize; the third gave us special relativity."
)
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a small village,",
    "The three laws of thermodynamics are",
    "To make bread, you need",
    "1, 1, 2, 3, 5, 8,",
    "SELECT name, COUNT(*) FROM",
    "Photosynthesis is the process by which",
    "Dear Sir or Madam,",
    "The quick brown fox",
    "import numpy as np\n",
    "In the beginning",
    "Water boils at",
    "The largest planet in the solar system",
    "How to tie a tie:\n1.",
    "class Stack:\n    def __init__(self):",
    "Shakespeare wrote",
    "The difference between a virus and a bacterium",
    "x = [i * i for i in range(10)]\nprint(",
    "Yesterday I went to the market and",
)
STEPS = [64, 16, 8, *[1] * 16, 8]
TIE = 1e-3
"""Logits closer than this may be told apart either way."""

Exported = Callable[..., Runner]


@pytest.fixture(scope="module")
def smol(real_model: RealModel) -> Model:
    return real_model("smollm2-135m")


@pytest.fixture(scope="module")
def reference(smol: Model, tmp_path_factory: pytest.TempPathFactory, model_at: ModelAt) -> Model:
    """The same weights as float32."""
    path = tmp_path_factory.mktemp("f32") / "smollm2-f32.gguf"
    return model_at(dequantized(smol.path, path))


@pytest.fixture(scope="module")
def exported(smol: Model, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    done: dict[tuple[Target, Precision], Path] = {}

    def run(target: Target, precision: Precision, level: int | None = None) -> Runner:
        key = (target, precision)
        if key not in done:
            done[key] = folder / "-".join(key)
            export(smol.path, done[key], target=target, precision=precision)
        return Runner(done[key], level)

    return run


def assert_same_greedy_text(
    model: Model, runner: Runner, prompt: str, n: int, mask: LayerMask
) -> int:
    """Greedy decoding gives the same tokens, up to the first that two choices tie for.

    Returns:
        how many were compared.
    """
    tokens = model.tokenize(prompt)
    with open_session(model, n_ctx=512, **IN_FLOAT32) as session:
        session.set_mask(mask)
        logits = step(session, tokens)[-1]
        for count, other in enumerate(runner.greedy(tokens, n, mask)):
            token = int(logits.argmax())
            if other != token:
                assert logits[token] - logits[other] < TIE, (prompt, count)
                return count
            logits = step(session, [token])[-1]
    return n


def text_tokens(model: Model) -> list[int]:
    return model.tokenize(TEXT)


def own_logits(model: Model, mask: LayerMask) -> Logits:
    return text_logits(model, text_tokens(model), 64, mask, **IN_FLOAT32)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("target", TARGETS)
def test_float32_is_llama_cpps(
    reference: Model, exported: Exported, target: Target, mask: str
) -> None:
    runner = exported(target, "fp32")
    found = runner.logits(text_tokens(reference), STEPS, MASKS[mask])
    assert divergence(own_logits(reference, MASKS[mask]), found) < 1e-9
    for prompt in PROMPTS[:2]:
        assert assert_same_greedy_text(reference, runner, prompt, 32, MASKS[mask]) > 8


@pytest.mark.long
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("target", TARGETS)
def test_float32_text_over_twenty_prompts(
    reference: Model, exported: Exported, target: Target, mask: str
) -> None:
    runner = exported(target, "fp32")
    same = [
        assert_same_greedy_text(reference, runner, prompt, 64, MASKS[mask]) for prompt in PROMPTS
    ]
    assert np.mean(same) > 48


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("target", TARGETS)
def test_quants_are_the_weights_of_the_float32_export(
    smol: Model, exported: Exported, target: Target, mask: str
) -> None:
    tokens = text_tokens(smol)
    full = exported(target, "fp32").logits(tokens, STEPS, MASKS[mask])
    kept = exported(target, "keep", 0).logits(tokens, STEPS, MASKS[mask])
    assert divergence(full, kept) < 1e-8


@pytest.mark.parametrize("target", TARGETS)
def test_activations_of_eight_bits_cost_what_llama_cpps_cost(
    smol: Model, reference: Model, exported: Exported, target: Target
) -> None:
    wanted = own_logits(reference, LayerMask())
    ours = divergence(wanted, exported(target, "keep").logits(text_tokens(smol), STEPS))
    theirs = divergence(wanted, own_logits(smol, LayerMask()))
    assert 1e-4 < ours < 1.5 * theirs
