"""Which block of layers to bridge."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, random_tokens

from edge_conflayers.bridges.bridge import Bridge
from edge_conflayers.bridges.regression import BridgeRegression
from edge_conflayers.bridges.replays import Text, replay_drafts
from edge_conflayers.bridges.search import (
    BridgedCosts,
    Judged,
    blocks_to_teach,
    fastest,
    first_block,
)
from edge_conflayers.bridges.streams import streams_of
from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session

COSTS = CostsAtContext(
    StepCosts((Measurement(1, 1.0, attention=0.07, mlp=0.07, v={2: 1.05, 8: 1.3}),))
)


@given(st.integers(3, 200), st.integers(0, 1000))
def test_blocks_leave_the_first_and_the_last_layer(n_layer: int, seed: int) -> None:
    blocks = blocks_to_teach(n_layer, seed=seed)
    assert blocks[0] == first_block(n_layer)
    assert len(blocks) == len(set(blocks))
    assert all(1 <= begin < end < n_layer for begin, end in blocks)


def test_a_known_block_is_not_taught_again_but_its_neighbours_are() -> None:
    near = blocks_to_teach(24, (4, 15))
    assert sorted(near) == [(3, 15), (4, 13), (4, 17), (5, 15)]
    assert len({tuple(blocks_to_teach(24, (4, 15), seed=seed)) for seed in range(20)}) > 5


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


def taught(session: Session, begin: int, end: int) -> Bridge:
    regression = BridgeRegression(session.model.n_embd)
    for seed in range(8):
        tokens = random_tokens(session.model, 200, seed)
        streams = streams_of(session, tokens, [begin, end])
        assert streams is not None
        regression.add(*streams.astype("float32"))
    return regression.solve(begin, end)


def test_the_fastest_bridge_that_there_is_time_for(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=8, layer_gain=0.1)
    with Session(model, n_ctx=600, threads=1) as session:
        bridges = [taught(session, *block) for block in ((2, 5), (2, 6), (1, 7))]
        text = text_of(model, session, random_tokens(model, 60, 99), 20)
        judged: list[Judged] = []
        best = fastest(bridges, [text], COSTS, deadline=math.inf, on_judged=judged.append)
        assert [each.bridge for each in judged] == bridges
        assert best.prediction.speed == max(each.prediction.speed for each in judged)
        judged.clear()
        fastest(bridges, [text], COSTS, deadline=time.monotonic(), on_judged=judged.append)
        assert len(judged) == 1


def test_a_map_costs_something() -> None:
    mask = LayerMask.layers({1, 2})
    costs = BridgedCosts(COSTS, 0.05)
    assert costs.c(mask) == pytest.approx(COSTS.c(mask) + 0.05)
    assert costs.v(4) == COSTS.v(4)
