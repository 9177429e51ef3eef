"""How many tokens a step may take to stay exact: tried once, then remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripted import ScriptedDrafter, partly_right
from steps import Tiny, TinyPath, open_session, random_tokens

from edge_conflayers.decoding.speculate import generate
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.engine.session import exact_batch as module
from edge_conflayers.engine.session.exact_batch import ON_CPU, exact_batch, tried, within_stride

STRIDE = 256


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> dict[Any, int]:
    """What is remembered in a test: nothing at first."""
    answers: dict[Any, int] = {}
    monkeypatch.setattr(module, "remembered", answers)
    return answers


class ScriptedText:
    """A text whose ``rounding(n, i)`` is what the i-th of n tokens' logits are off by."""

    threads, flash_attention, kv_type = 2, None, "f16"

    def __init__(
        self,
        rounding: Callable[[int, int], float],
        length: int = 0,
        room: int = 1000,
        on_gpu: bool = True,
    ):
        self.model = SimpleNamespace(
            repeated=lambda text, n: [5 + i % 3 for i in range(n)],
            **{"on_gpu": on_gpu, "gpu_layers": -1 if on_gpu else 0, "forgets": True},
            **{"path": Path(__file__), "kernels": "ecl", "changes": ""},
        )
        self.max_outputs = 32
        self.room = room
        self.length = length
        self.steps: list[int] = []
        self._rounding = rounding

    def __len__(self) -> int:
        return self.length

    def step(self, tokens: Sequence[int], *, outputs: str) -> None:
        assert outputs == "all"
        self.steps.append(len(tokens))
        self.length += len(tokens)
        self.room -= len(tokens)
        assert self.room >= 0
        places = range(self.length - len(tokens), self.length)
        self._rows = [
            np.float32([place, 1.0 + self._rounding(len(tokens), i)])
            for i, place in enumerate(places)
        ]

    def logits(self, index: int) -> Any:
        return self._rows[index]

    def rollback(self, length: int) -> None:
        self.room += self.length - length
        self.length = length


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "llama_supports_gpu_offload", lambda: True)


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (lambda n, i: 0.0, 8),
        (lambda n, i: 1e-6 * (n > 1), 1),
        (lambda n, i: 1e-6 * (n > 4), 4),
        (lambda n, i: 1e-6 * (n == 3 and i == 2), 2),
        (lambda n, i: 1e-6 * (n == 8 and i == 7), 7),
        (lambda n, i: 1e-6 * i * (n == 5), 4),
    ],
)
def test_the_most_tokens_before_the_first_other_bit(rounding: Any, expected: int) -> None:
    text = ScriptedText(rounding, length=20)
    assert exact_batch(text) == expected
    assert (text.length, text.room) == (20, 1000)
    assert text.steps == [*[1] * 8, *range(2, min(expected + 1, 8) + 1)]


@pytest.mark.parametrize(
    ("length", "room", "expected"), [(0, 5, 5), (250, 99, 6), (255, 99, 1), (256, 99, 8), (9, 0, 1)]
)
def test_not_beyond_the_room_or_the_stride(length: int, room: int, expected: int) -> None:
    text = ScriptedText(lambda n, i: 0.0, length, room)
    assert exact_batch(text) == expected
    assert text.steps.count(1) == (expected if expected > 1 else 0)


@pytest.mark.parametrize(
    ("rounding", "expected", "steps"),
    [
        (lambda n, i: 0.0, 31, [1, 2, 1, 8, 1]),
        (lambda n, i: 1e-6 * (n > 1), 1, [1, 2]),
        (lambda n, i: 1e-6 * (n > 3), 3, [1, 2, 1, 8, 3, 1, 4]),
        (lambda n, i: 1e-6 * (n == 8 and i == 7), 7, None),
        (lambda n, i: 1e-6 * (n in (5, 8) and i == 0), 4, None),
    ],
)
def test_on_a_cpu_some_sizes_are_tried_and_those_below_the_first_that_differs(
    rounding: Any, expected: int, steps: list[int] | None
) -> None:
    text = ScriptedText(rounding, length=20, on_gpu=False)
    assert exact_batch(text) == expected
    assert (text.length, text.room) == (20, 1000)
    assert steps is None or text.steps == steps


def test_an_answer_is_remembered_unless_there_was_no_room_for_all_sizes(
    remembered: dict[Any, int],
) -> None:
    assert exact_batch(ScriptedText(lambda n, i: 0.0, room=1, on_gpu=False)) == 1
    assert exact_batch(ScriptedText(lambda n, i: 0.0, room=7, on_gpu=False)) == 2
    assert not remembered
    assert exact_batch(ScriptedText(lambda n, i: 1e-6 * (n > 5), room=9, on_gpu=False)) == 5
    (setting,) = remembered
    again = ScriptedText(lambda n, i: 0.0, on_gpu=False)
    assert exact_batch(again) == 5
    assert again.steps == []
    again.kv_type = "q8_0"
    assert exact_batch(again) == 31
    assert remembered == {setting: 5, setting._replace(kv_type="q8_0"): 31}


def on_this_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("the layers are on another device")


@pytest.mark.parametrize("kernels", ["ecl", "upstream"])
def test_a_cpu_is_exact_with_our_kernels_and_with_upstreams_token_by_token(
    tiny_path: TinyPath, gpu_layers: int, kernels: KernelChoice
) -> None:
    on_this_cpu(gpu_layers)
    path = tiny_path("llama", quant="q8_0")
    with Model(path, kernels=kernels) as model:
        with open_session(model, n_ctx=64, max_outputs=40) as session:
            text = random_tokens(model, 12)
            session.read(text)
            assert session.exact_batch == session.most_verified == ON_CPU
            assert session.tokens == text
            session.read(random_tokens(model, 40))
            assert session.most_verified == session.room == 12
        with open_session(model, n_ctx=64) as session:
            session.read(text)
            before = session.logits(-1).copy()
            assert session.exact_batch == ON_CPU  # remembered: the last step's logits are there
            assert np.array_equal(session.logits(-1), before)


@pytest.mark.parametrize("quant", ["f32", "f16", "bf16"])
def test_upstreams_batches_are_found_to_differ(
    tiny_path: TinyPath, gpu_layers: int, quant: str
) -> None:
    on_this_cpu(gpu_layers)
    path = tiny_path("llama", quant=quant, n_embd=128)
    with (
        Model(path, kernels="upstream-as-is") as model,
        open_session(model, n_ctx=64) as session,
    ):
        assert tried(session, (2, 4, 8)) is not None
        assert session.exact_batch == 1
        assert not session.verifies_drafts


def test_a_model_that_cannot_forget_is_not_tried(tiny: Tiny, gpu_layers: int) -> None:
    on_this_cpu(gpu_layers)
    with open_session(tiny("mamba"), n_ctx=64) as session:
        session.read([5, 6, 7])
        assert session.exact_batch == ON_CPU
        assert session.tokens == [5, 6, 7]


@pytest.fixture
def offloaded(gpu: None, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Model:
    """What is tried as a GPU is; it computes on the CPU, and so exactly."""
    model = tiny("llama", layer_gain=0.2)
    monkeypatch.setattr(model, "gpu_layers", -1)
    return model


def test_trying_leaves_the_text_as_it_was(offloaded: Model) -> None:
    with open_session(offloaded, n_ctx=64) as session:
        text = random_tokens(offloaded, 12)
        session.read(text)
        assert session.exact_batch == 8
        assert session.tokens == text
        assert session.most_verified == 8


def written(model: Model, n: int, drafter: ScriptedDrafter | None) -> list[int]:
    prompt = random_tokens(model, 240)
    with Session(model, n_ctx=1024, threads=1) as session:
        sampler = Sampler(model, SamplerSettings(temperature=0.9, seed=4))
        return list(generate(session, prompt, sampler, drafter=drafter, max_tokens=n))


def test_no_step_reaches_into_the_next_stride(offloaded: Model) -> None:
    plain = written(offloaded, 60, None)
    drafter = ScriptedDrafter(partly_right(plain, offloaded.n_vocab, seed=3, longest=24), 240)
    assert written(offloaded, 60, drafter) == plain
    place = 240
    for round, limit in zip(drafter.rounds, drafter.limits, strict=False):
        assert limit == min(7, within_stride(place) - 1, 240 + 60 - place - 2)
        assert place // STRIDE == (place + len(round.draft.tokens)) // STRIDE
        place += 1 + len(round.path)
    assert place > STRIDE


def test_nothing_is_drafted_where_two_tokens_are_not_exact(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", layer_gain=0.2)
    plain = written(model, 20, None)
    monkeypatch.setattr(Session, "exact_batch", 1)
    drafter = ScriptedDrafter(lambda known, limit: pytest.fail("asked for a draft"), 240)
    assert written(model, 20, drafter) == plain
