"""The promise on ONNX Runtime: the text is plain decoding's, token by token, whoever drafts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from onnx_folders import Opened
from steps import random_tokens
from test_identity import LETTERS, PROMPTS, REPEATING, SAMPLERS, check

from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.session import TextSession
from edge_conflayers.methods import METHODS, STATES_METHODS
from edge_conflayers.onnx.model import OnnxModel
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.text_generator import TextGenerator

DRAFTERS = ("eager", "random", "scripted", "lookup", "recycling", "auto", "steady")
SEARCHES = ("conflayers", "swift", "measured")
KINDS = (
    ("llama", {"quant": "f32"}),
    ("llama", {"quant": "q4_0", "n_embd": 256, "n_ff": 512}),
    ("llama", {"quant": "q4_1", "n_embd": 128}),
    ("qwen2", {"quant": "q8_0", "n_embd": 128}),
    ("qwen3", {"quant": "f16"}),
    ("gemma3", {"quant": "q5_0", "n_embd": 128, "sliding_window": 32}),
)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("target", ["ort", "standard"])
@pytest.mark.parametrize(
    ("arch", "kind"),
    KINDS,
    ids=lambda value: value if isinstance(value, str) else value["quant"],
)
def test_tiny_models(
    opened: Opened, arch: str, kind: dict[str, Any], target: str, sampler: str
) -> None:
    model = opened(arch, target=target, n_layer=6, layer_gain=0.1, **kind)
    # Another prompt where the text would be too short to draft much.
    prompt = random_tokens(model, 10, seed=kind["quant"] == "q4_1") * 2
    if sampler == "greedy":
        least = {"random": 3, "eager": 3, "lookup": 1, "recycling": 1, "steady": 1}
        check(model, prompt, {}, 60, DRAFTERS, least, n_ctx=256, threads=1)
    else:
        settings = {**SAMPLERS[sampler], "logit_bias": LETTERS}
        least = {"lookup": 6, "steady": 3}
        check(model, prompt, settings, 60, DRAFTERS, least, n_ctx=256, threads=1)


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_searches_over_the_text_itself(opened: Opened, arch: str, method: str) -> None:
    """Replays and probes run between rounds, in the text's own cache."""
    model = opened(arch, n_layer=6, layer_gain=0.1, quant="q8_0")
    prompt = random_tokens(model, 90)
    check(model, prompt, {}, 70, (method,), {method: 2}, n_ctx=256, threads=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_contexts_that_grow(opened: Opened, arch: str, threads: int) -> None:
    """Past 256 positions, where sums are divided."""
    model = opened(arch, n_layer=6, n_embd=128, layer_gain=0.1, quant="q8_0")
    settings = {**SAMPLERS["sampled"], "logit_bias": LETTERS}
    for prompt in (225, 400):
        check(
            model,
            random_tokens(model, prompt),
            settings,
            80,
            ("random", "scripted", "auto", "steady"),
            {"steady": 4},
            n_ctx=511,
            threads=threads,
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", ["ort", "standard"])
def test_precisions(opened: Opened, target: str, precision: str) -> None:
    model = opened(
        "qwen2", target=target, precision=precision, n_layer=6, layer_gain=0.1, quant="q8_0"
    )
    assert model.cache_type == ("tensor(float16)" if precision == "fp16" else "tensor(float)")
    prompt = random_tokens(model, 10) * 2
    check(model, prompt, {}, 50, ("random", "scripted", "steady"), {}, n_ctx=256, threads=1)


def test_a_long_context(opened: Opened) -> None:
    """A prompt of several batches, and texts far behind the places that were tried."""
    model = opened("gemma3", n_layer=6, layer_gain=0.1, quant="q8_0", context_length=4096)
    prompt = random_tokens(model, 1500)
    drafters = ("random", "scripted", "steady")
    check(model, prompt, {}, 40, drafters, {"random": 4}, n_ctx=2048, threads=2)


def test_a_text_that_ends_with_its_context(opened: Opened) -> None:
    model = opened("llama", n_layer=6, layer_gain=0.1)
    prompt = random_tokens(model, 40)
    settings = {"logit_bias": {2: float("-inf")}}
    check(model, prompt, settings, 100, ("scripted", "random"), {}, n_ctx=64, threads=1)


class _Interrupted:
    """Raises after so many draws of a session."""

    def __init__(self, session: TextSession, draws: int) -> None:
        self._draw, self._left = session.draw, draws

    def __call__(self, index: int, samplers: Any) -> int:
        token = self._draw(index, samplers)
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        return token


@pytest.mark.parametrize("method", ["plain", "lookup", "layerskip"])
def test_an_interrupt_loses_nothing(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What was handed out is the text's beginning, and the next text is as if nothing had been."""
    folder = opened("llama", n_layer=6, layer_gain=0.1, quant="q8_0").path
    prompt = [7, 8, 9, 10, 11] * 4
    with TextGenerator(
        folder, method=method, threads=1, n_ctx=200, profiles=ProfileStore(tmp_path)
    ) as writer:
        whole = list(writer.generate(prompt, max_tokens=40))
        session = writer.open(20, 40)
        for draws in range(2, 20, 3):
            found = []
            with monkeypatch.context() as patch:
                patch.setattr(session, "draw", _Interrupted(session, draws))
                with pytest.raises(KeyboardInterrupt):
                    for token in writer.generate(prompt, max_tokens=40):
                        found.append(token)
            assert found == whole[: len(found)]
            held = session.tokens[len(prompt) :]
            assert held == whole[: len(held)] and len(found) <= len(held) + 1
            assert list(writer.generate(prompt, max_tokens=40)) == whole


METHOD_NAMES = tuple(
    name for name in METHODS if name not in STATES_METHODS and "draft-model" not in name
)


def test_every_method_writes_the_same(folder_of: Any, tmp_path: Path) -> None:
    """By the generator that the command uses, text after text."""
    folder = folder_of("llama", n_layer=6, layer_gain=0.1, quant="q8_0")
    texts: dict[str, list[list[int]]] = {}
    accepted = {}
    for name in METHOD_NAMES:
        store = ProfileStore(tmp_path / name)
        with TextGenerator(folder, method=name, threads=1, n_ctx=400, profiles=store) as writer:
            texts[name], accepted[name] = [], 0
            for seed in range(2):
                prompt = random_tokens(writer.model, 70, seed) * 2
                stats = Stats()
                with closing(writer.generate(prompt, max_tokens=60, stats=stats)) as written:
                    texts[name].append(list(written))
                accepted[name] += stats.accepted
            assert writer.method_name == name
    assert all(each == texts["plain"] for each in texts.values())
    assert texts["plain"][0] and accepted.pop("plain") == 0
    assert min(accepted[name] for name in ("lookup", "recycling", "layerskip", "del")) > 0
    assert sum(accepted.values()) > 30


@pytest.mark.model
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_real_model(real_folder: Callable[[str], Path], sampler: str) -> None:
    with OnnxModel(real_folder("smollm2-135m"), threads=1) as model:
        number = tuple(SAMPLERS).index(sampler)
        prompt = model.tokenize(PROMPTS[number])
        others = ("scripted", "lookup", "recycling", "swift", "conflayers")
        check(
            *(model, prompt, SAMPLERS[sampler], 32),
            *(("random", "steady", others[number]), {}),
            **{"n_ctx": 512, "threads": 1},
        )


@pytest.mark.model
def test_a_real_model_that_repeats_itself(real_folder: Callable[[str], Path]) -> None:
    least = {"conflayers": 3, "random": 3, "lookup": 20, "recycling": 16, "steady": 18}
    with OnnxModel(real_folder("smollm2-135m"), threads=1) as model:
        prompt = model.tokenize(REPEATING)
        check(model, prompt, {}, 48, tuple(least), least, n_ctx=512, threads=1)
