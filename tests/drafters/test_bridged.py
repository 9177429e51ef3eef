"""Drafts over bridges, round by round, and the method without any."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from steps import Tiny, random_tokens

from edge_conflayers.bridges.bridge import Bridge, Bridges
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.drafters.bridged import BridgedDrafter
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.methods import MethodOptions, make_method


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("bridges compute on the CPU")


def bridges(model: Model, speed: float = 1.5) -> Bridges:
    """One that leaves the stream as it is."""
    weights = np.zeros((model.n_embd, 3 * model.n_embd + 1), dtype=np.float32)
    prediction = Prediction(speed, 0.1, 5, 0.8, 3.0)
    return Bridges((Bridge(1, 3, weights),), prediction, 128, Counter({7: 2}))


def write(
    model: Model, drafter: BridgedDrafter | None, session: Session
) -> tuple[list[int], Stats]:
    stats = Stats()
    session.clear()
    with closing(Sampler(model, SamplerSettings())) as sampler:
        prompt = random_tokens(model, 40)
        texts = generate(session, prompt, sampler, drafter=drafter, max_tokens=60, stats=stats)
        return list(texts), stats


@pytest.mark.parametrize("leaf_probability", [None, 0.01])
def test_all_but_the_first_round_draft(tiny: Tiny, leaf_probability: float | None) -> None:
    """From one text to the next in a session, and in another session."""
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    drafter = BridgedDrafter(bridges(model), leaf_probability=leaf_probability)
    for _ in range(2):
        with Session(model, n_ctx=256, threads=1) as session:
            for _ in range(2):
                plain, _ = write(model, None, session)
                text, stats = write(model, drafter, session)
                assert text == plain
                drafted = [each["drafted"] for each in stats.record]
                assert drafted[0] == 0 and all(drafted[1:-1])
                assert stats.accepted >= 20
                assert {*stats.sources} == {"full", "bridged"}
                assert stats.drafter["blocks"] == [(1, 3)]


def test_the_method_says_that_it_needs_tune(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny("llama", n_layer=6)
    for known in (None, bridges(model, speed=0.9)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            method = make_method("bridged", model, MethodOptions(bridges=known))
        assert method.drafter is None
        assert len(caplog.records) == 1 and "tune" in caplog.text


def test_the_method_drafts_over_what_was_taught(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    method = make_method("bridged", model, MethodOptions(bridges=bridges(model)))
    assert isinstance(method.drafter, BridgedDrafter)
    assert method.drafter.vocabulary is not None and method.drafter.vocabulary.size == 128
