"""Which block of layers to bridge."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, random_tokens

from edge_conflayers.bridges.replays import Text, replay_drafts
from edge_conflayers.bridges.search import (
    BridgedCosts,
    Judged,
    boundaries,
    find_block,
    first_block,
)
from edge_conflayers.bridges.streams import streams_of
from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session

COSTS = CostsAtContext(
    StepCosts((Measurement(1, 1.0, attention=0.07, mlp=0.07, v={2: 1.05, 8: 1.3}),))
)


@given(st.integers(3, 200))
def test_the_first_block_is_one(n_layer: int) -> None:
    begin, end = first_block(n_layer)
    assert 1 <= begin < end < n_layer
    layers = boundaries(n_layer)
    assert {begin, end} <= {*layers}
    assert layers == sorted(set(layers)) and layers[0] >= 1 and layers[-1] < n_layer


def text_of(model: Model, session: Session, tokens: list[int], begin: int) -> Text:
    session.read(tokens)
    streams = streams_of(session, tokens, range(model.n_layer))
    assert streams is not None
    return Text(session, begin, streams)


def test_a_replay_has_a_record_for_each_position(tiny: Tiny) -> None:
    """Without a mask, drafts are the full model's own."""
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    with Session(model, n_ctx=256, threads=1) as session:
        tokens = random_tokens(model, 20)
        session.read(tokens)
        for _ in range(30):
            tokens.append(session.argmax(-1))
            session.step(tokens[-1:])
        session.clear()
        text = text_of(model, session, [*tokens, 7, 8], 20)
        records = replay_drafts(text, NO_MASK, [], most=64)
        # Drafts that are unsure end early, and the next one goes on.
        assert [each.matches for each in records[:30]] == [True] * 30
        assert len(records) == 32
        assert len(replay_drafts(text, NO_MASK, [], most=5)) == 5
        assert session.tokens == [*tokens, 7, 8]


def test_the_fastest_block_that_there_is_time_for(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=8, layer_gain=0.1)
    layers = boundaries(8)
    rng = np.random.default_rng(1)
    with Session(model, n_ctx=600, threads=1) as session:
        streams = []
        for seed in range(8):
            found = streams_of(session, random_tokens(model, 200, seed), layers)
            assert found is not None
            streams.append(found)
        text = text_of(model, session, [int(t) for t in rng.integers(3, model.n_vocab, 60)], 20)
        judged: list[Judged] = []
        best = find_block(
            *(streams, layers, [text], COSTS), deadline=math.inf, on_judged=judged.append
        )
        blocks = [(each.bridge.begin, each.bridge.end) for each in judged]
        assert blocks[0] == first_block(8) and len(blocks) == len(set(blocks)) > 2
        assert best.prediction.speed == max(each.prediction.speed for each in judged)
        judged.clear()
        find_block(
            *(streams, layers, [text], COSTS),
            deadline=time.monotonic(),
            on_judged=judged.append,
        )
        assert len(judged) == 1


def test_a_map_costs_something() -> None:
    mask = LayerMask.layers({1, 2})
    costs = BridgedCosts(COSTS, 0.05)
    assert costs.c(mask) == pytest.approx(COSTS.c(mask) + 0.05)
    assert costs.v(4) == COSTS.v(4)
