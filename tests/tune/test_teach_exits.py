"""Exits that are taught by a model's own texts."""

from __future__ import annotations

import numpy as np
import pytest
from steps import Tiny, random_tokens

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.exits.taught_exits import exit_layers
from edge_conflayers.tune import teach_exits as module
from edge_conflayers.tune.teach_exits import Progress, TaughtResult, teach_exits


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("taught exits compute on the CPU")


def taught(model: Model, monkeypatch: pytest.MonkeyPatch, tokens: int) -> TaughtResult:
    """Exits of so many tokens, however long that takes."""
    seen: list[Progress] = []
    monkeypatch.setattr(module._Collector, "full", property(lambda self: len(self) >= tokens))
    prompts = [random_tokens(model, 12, seed) for seed in range(8)]
    result = teach_exits(model, prompts, seconds=600, threads=1, on_progress=seen.append)
    assert result is not None
    assert result.tokens + result.exits.right.shape[1] >= tokens
    assert f"{tokens} tokens" in [each.label for each in seen]
    assert seen[-1].label == f"{result.tokens} tokens, {module._PASSES} times"
    return result


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_exits_learn_what_the_model_says(
    tiny: Tiny, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(arch, n_layer=8, layer_gain=0.1, quant="f32")
    result = taught(model, monkeypatch, 1500)
    exits = result.exits
    assert exits.layers == exit_layers(8) and not result.interrupted
    assert exits.entropies.shape == exits.right.shape and exits.right.shape[1] > 50
    # A random model's hidden states are nearly linear in its exits'; guessing would be right once
    # in 320 times.
    assert min(result.foreseen) > 0.3
    assert exits.written.total() >= 1500
    assert max(exits.thresholds(0.3)) > 0


def test_an_interrupt_keeps_what_was_learned(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", n_layer=4)
    tokens = 0

    def interrupt(progress: Progress) -> None:
        nonlocal tokens
        tokens += 1
        if tokens == 900:
            raise KeyboardInterrupt

    result = teach_exits(
        model, [random_tokens(model, 12)], seconds=600, threads=1, on_progress=interrupt
    )
    assert result is not None and result.interrupted
    assert np.isfinite(result.exits.weights).all() and result.exits.entropies.shape[1] > 0


def test_too_little_text(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    assert teach_exits(model, [random_tokens(model, 12)], seconds=0.0, threads=1) is None

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach_exits(
            model, [random_tokens(model, 12)], seconds=600, threads=1, on_progress=interrupt
        )


def test_recurrent_models_are_refused_by_name(tiny: Tiny) -> None:
    model = tiny("mamba", n_layer=4)
    with pytest.raises(BadInput, match="'mamba'"):
        teach_exits(model, [random_tokens(model, 12)], seconds=600, threads=1)
