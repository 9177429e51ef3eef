"""SWIFT's choices on cases whose answers are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from steps import Tiny, open_session, random_tokens

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.published.gaussian_process import GaussianProcess, suggest
from edge_conflayers.layer_search.published.swift import SwiftSearch, SwiftSettings
from edge_conflayers.layer_search.replays import matchness, replay_records
from edge_conflayers.layer_search.sublayers import candidates, mask_of, members

N_LAYER = 12
WORTH = np.linspace(0.0, 0.05, candidates(N_LAYER))  # what keeping each candidate adds


def score(mask: LayerMask) -> float:
    """Additive, so that the best set is the candidates that are worth least."""
    return float(1.0 - WORTH[members(mask, N_LAYER)].sum())


def round_after(generated: int) -> Round:
    return Round((5,), Draft(), (), 6, generated)


def test_the_sets_have_the_published_size_and_spare_the_ends() -> None:
    search = SwiftSearch(N_LAYER)
    assert search.mask == LayerMask.layers({1, 3, 5, 7, 9})
    seen = set()
    for _ in range(24):
        mask = search.propose()
        assert mask == search.propose()
        assert members(mask, N_LAYER).sum() == int(20 * 0.45) == 9
        assert (mask.attention | mask.mlp) <= set(range(1, 11))
        seen.add(mask)
        search.judge(mask, 0.5)
    assert len(seen) == 24
    assert any(mask.attention != mask.mlp for mask in seen)


def test_only_a_higher_matchness_replaces_the_set() -> None:
    search = SwiftSearch(N_LAYER)
    masks = [mask_of(range(i, i + 9), N_LAYER) for i in range(4)]
    for mask, value in zip(masks, (0.4, 0.4, 0.6, 0.5), strict=True):
        search.judge(mask, value)
    assert search.mask == masks[2] and search.matchness == 0.6


@pytest.mark.parametrize(
    ("scores", "finished"),
    [
        ([0.95], False),
        ([0.96], True),
        ([0.5] + [0.5] * 4, False),
        ([0.5] + [0.5] * 5, True),
        ([0.1 * i for i in range(1, 8)], False),
        ([0.1 * i for i in range(1, 9)], True),
    ],
)
def test_stop_rules(scores: list[float], finished: bool) -> None:
    search = SwiftSearch(N_LAYER, SwiftSettings(max_tolerance=4, max_candidates=8))
    for value in scores:
        assert not search.finished
        search.judge(search.propose(), value)
    assert search.finished is finished


def test_the_process_interpolates_and_is_unsure_far_away() -> None:
    random = np.random.default_rng(0)
    sets = random.random((30, 20)).argsort(axis=1) < 9
    scores = [1.0 - WORTH[each].sum() for each in sets]
    process = GaussianProcess(sets, scores, 1e-4)
    mean, deviation = process.predict(sets)
    assert mean == pytest.approx(scores, abs=0.01)
    others = random.random((200, 20)).argsort(axis=1) < 9
    assert (process.predict(others)[1] > deviation.max()).all()


def test_bayesian_optimisation_finds_the_best_set_that_random_ones_do_not() -> None:
    random = np.random.default_rng(1)
    sets = random.random((150, 20)).argsort(axis=1) < 9
    scores = [1.0 - WORTH[each].sum() for each in sets]
    best = np.arange(20) < 9
    assert max(scores) < 1.0 - WORTH[best].sum()
    found = suggest(GaussianProcess(sets, scores, 1e-4), 20, 9, kappa=0.0, seed=0)
    assert (found == best).all()


def test_suggestions_beat_random_candidates() -> None:
    search = SwiftSearch(N_LAYER, SwiftSettings(max_score=1.0, bayes_interval=5))
    by_number = []
    for _ in range(100):
        mask = search.propose()
        by_number.append(score(mask))
        search.judge(mask, score(mask))
    suggested = by_number[4::5]
    assert np.mean(suggested[10:]) > max(value for i, value in enumerate(by_number) if i % 5 != 4)


def test_the_state_goes_on_exactly() -> None:
    search = SwiftSearch(N_LAYER, SwiftSettings(bayes_interval=4))
    for _ in range(7):
        search.judge(search.propose(), score(search.propose()))
    state = json.loads(json.dumps(search.state()))
    again = SwiftSearch.from_state(state, N_LAYER, search.settings)
    assert again.state() == search.state()
    assert again.propose() == search.propose()  # the eighth, by the process
    for broken in (
        {**state, "n_layer": 13},
        {**state, "seen": [["fffffffff", 0.5]]},
        {**state, "seen": [["1", 1.5]]},
        {**state, "mask": {"attention": [99], "mlp": []}},
        {key: value for key, value in state.items() if key != "matchness"},
    ):
        with pytest.raises(BadInput, match="cannot be used"):
            SwiftSearch.from_state(broken, N_LAYER)


def test_models_that_are_too_small_and_settings_out_of_range() -> None:
    with pytest.raises(BadInput, match="at least 3"):
        SwiftSearch(2)
    with pytest.raises(BadInput, match="is none"):
        SwiftSearch(3, SwiftSettings(skip_ratio=0.1))
    with pytest.raises(BadInput, match="skip_ratio"):
        SwiftSettings(skip_ratio=1.5)


def test_one_candidate_a_round_judged_by_replay(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.2)
    search = SwiftSearch(model.n_layer, SwiftSettings(context_window=8))
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 40))
        search.observe(round_after(9))
        search.advance(session)
        assert search.judged == 0  # the window is not full
        search.observe(round_after(10))
        candidate = search.propose()
        search.advance(session)
        assert search.judged == 1
        records = replay_records(session, candidate, 32)
        assert records is not None and len(records) == 8
        assert search.matchness == matchness(records)
        assert len(session) == 40


def test_no_room_for_a_candidate(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    search = SwiftSearch(model.n_layer)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 250))
        search.observe(round_after(100))
        search.advance(session)
        assert search.judged == 0
