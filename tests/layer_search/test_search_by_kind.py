"""What is kept under which kind of prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from steps import Tiny, open_session

from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.layer_search.measured import Found, MeasuredSettings
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.layer_search.prompt_kinds import signature
from edge_conflayers.layer_search.search_by_kind import SearchByKind
from edge_conflayers.layer_search.skip_sets import SkipSet, SkipSets

CODE = "def mean(values):\n    total = 0\n    for v in values:\n        total += v\n    return"
TALE = "Once upon a time there lived a fox in a forest near the sea, and she was often hungry."
FOUND = Found(LayerMask.layers({1, 2}), Prediction(1.3, 0.25, 5, 0.8, 3.0), 0.7)


@pytest.fixture
def tale(tiny: Tiny) -> Iterator[Session]:
    """A text that only a set for code is known beside."""
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    with open_session(model, n_ctx=512) as session:
        session.read(model.tokenize(TALE))
        yield session


def known() -> SkipSets:
    return SkipSets(6, [SkipSet("code", signature(CODE), FOUND)])


def begin(session: Session, sets: SkipSets, share: float = 0.05) -> SearchByKind:
    costs = CostsAtContext(StepCosts((Measurement(1, 1.0, attention=0.1, mlp=0.1, v={2: 1.01}),)))
    search = SearchByKind(sets, costs, MeasuredSettings(window=16, share=share))
    search.begin(session)
    return search


def a_round(generated: int) -> Round:
    return Round((5,), Draft(), (), 7, generated, verify_seconds=2.0)


def test_a_set_is_not_kept_for_a_kind_that_it_was_not_judged_for(tale: Session) -> None:
    sets = known()
    search = begin(tale, sets)
    assert search.kind == "seen 1" and search.found == FOUND  # to start with
    search.observe(a_round(1))
    search.advance(tale)
    search.state()
    (code,) = sets
    assert (code.kind, code.found, code.memory.gains) == ("code", FOUND, ())


def test_time_saved_up_in_short_texts_is_kept(tale: Session) -> None:
    """Or a search would never begin where every text is too short for a candidate."""
    state = known().to_json()
    for texts in (1, 2, 3):
        search = begin(tale, SkipSets.from_json(state, 6))
        search.observe(a_round(1))
        state = search.state()
        (kept,) = state["sets"].values()
        assert kept["credit"] == pytest.approx(0.1 * texts)


def test_a_set_is_kept_for_the_kind_that_it_was_judged_for(tale: Session) -> None:
    sets = known()
    search = begin(tale, sets, share=math.inf)
    tale.read(tale.tokens[:30])
    for _ in range(2):  # the order of the sub-layers first
        search.observe(a_round(30))
        search.advance(tale)
    code, seen = sets
    assert (code.kind, code.found) == ("code", FOUND)
    assert seen.kind == "seen 1" and seen.found.mask == FOUND.mask
    assert seen.found.prediction != FOUND.prediction
