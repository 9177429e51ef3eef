"""ConfLayers' selection against the published implementation, and its search by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conflayers_reference import module_confidence
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.layer_search.published.conflayers import ConfLayersSearch
from edge_conflayers.layer_search.published.conflayers_selection import (
    ConfLayersSettings,
    select_layers,
)

ORACLE = Path(__file__).parents[4] / "shared" / "oracles" / "conflayers_selection.json"


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    if not ORACLE.exists():
        pytest.skip(f"{ORACLE} is not here: outputs of the published implementation")
    content: dict[str, Any] = json.loads(ORACLE.read_text())
    return content


def test_selection_agrees_with_every_published_case(oracle: dict[str, Any]) -> None:
    cases = oracle["find_skip_layers"]
    assert len(cases) >= 40
    for case in cases:
        chosen = select_layers(
            np.array(case["confidence"], dtype=np.float16),
            case["n_layer"],
            case["lambda"],
            ConfLayersSettings(skip_ratio=case["skip_ratio"]),
            case["model_family"],
        )
        assert list(chosen.skip_layers) == case["skip_layers"]
        assert chosen.next_lambda == pytest.approx(case["lambda_next"], abs=1e-9)
        assert list(chosen.windows) == case["windows"]
        assert list(chosen.thresholds) == case["thresholds"]


def test_module_confidence_agrees_with_every_published_case(oracle: dict[str, Any]) -> None:
    cases = oracle["module_confidence"]
    assert len(cases) >= 12
    for case in cases:
        activations = np.array(case["activations"], dtype=np.float32)
        assert activations.shape == (case["tokens"], case["width"])
        assert module_confidence(activations) == np.float16(case["confidence"])


def test_module_confidence_of_known_distributions() -> None:
    assert module_confidence(np.zeros((3, 64))) == pytest.approx(0.0, abs=1e-3)
    one_hot = np.zeros((2, 64))
    one_hot[:, 5] = 1000.0
    assert module_confidence(one_hot) == np.float16(1.0)
    two_of_four = np.array([[500.0, 500.0, 0.0, 0.0]])  # H = log 2, log(width) = 2 log 2
    assert module_confidence(two_of_four) == np.float16(0.5)
    assert module_confidence(two_of_four).dtype == np.float16


@pytest.mark.parametrize("shape", [(4,), (0, 8), (3, 1)])
def test_module_confidence_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="outputs must be"):
        module_confidence(np.zeros(shape))


def test_a_lone_dip_is_skipped() -> None:
    confidence = np.full(10, 1.0, dtype=np.float16)
    confidence[4] = 0.5
    chosen = select_layers(confidence, 12, 0.0, ConfLayersSettings(), "llama")
    assert chosen.skip_layers == (5,)  # candidate index 4 is layer 5
    assert chosen.next_lambda == pytest.approx(-0.05)  # one of ten is under the ratio


def test_equal_confidences_skip_nothing_and_widen_by_their_whole_run() -> None:
    chosen = select_layers(
        np.full(10, 0.5, dtype=np.float16), 12, 0.0, ConfLayersSettings(), "llama"
    )
    assert chosen.skip_layers == ()
    # All ten gradients are equal: count 10, reach 50, g 0.5 everywhere.
    assert chosen.windows == tuple(2 + int(50 * 0.5 * (i + 1) / 12) for i in range(10))


@pytest.mark.filterwarnings("error")
def test_an_outlier_among_equal_confidences_has_an_infinite_spread_around() -> None:
    confidence = np.full(14, 0.1, dtype=np.float16)
    confidence[5] += np.float16(3e-4)  # its score's square is beyond float16
    for lam, limit in ((1.0, -np.inf), (-1.0, np.inf)):
        chosen = select_layers(confidence, 16, lam, ConfLayersSettings(), "llama")
        beside = [i for i, threshold in enumerate(chosen.thresholds) if threshold == limit]
        assert beside and 5 not in beside
        assert {i + 1 for i in beside} <= set(chosen.skip_layers) or lam > 0
        assert not {i + 1 for i in beside} & set(chosen.skip_layers) or lam < 0


def test_qwen_caps_the_reach_at_a_third_of_the_layers() -> None:
    flat = np.full(10, 0.5, dtype=np.float16)
    chosen = select_layers(flat, 12, 0.0, ConfLayersSettings(), "qwen2")
    assert chosen.windows == tuple(2 + int(4 * 0.5 * (i + 1) / 12) for i in range(10))


def test_lambda_rises_when_far_too_many_layers_are_skipped() -> None:
    confidence = np.array([0.5, 0.6] * 6, dtype=np.float16)
    few = ConfLayersSettings(skip_ratio=0.1)
    chosen = select_layers(confidence, 14, 0.0, few, "llama")
    assert len(chosen.skip_layers) / 12 > 0.35
    assert chosen.next_lambda == pytest.approx(0.05)


def test_confidences_that_are_not_finite_are_refused() -> None:
    confidence = np.full(10, 0.5, dtype=np.float16)
    confidence[3] = np.nan
    with pytest.raises(EdgeConflayersError, match="not finite"):
        select_layers(confidence, 12, 0.0, ConfLayersSettings(), "llama")


def test_selection_refuses_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match="12 layers"):
        select_layers(np.zeros(12, dtype=np.float16), 12, 0.0, ConfLayersSettings(), "llama")


@st.composite
def confidences(draw: st.DrawFn) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Any float16 vector of plausible length, runs of equal values and constants included."""
    n = draw(st.integers(min_value=2, max_value=80))
    values = st.floats(min_value=0, max_value=2, width=16)
    pool = st.sampled_from(draw(st.lists(values, min_size=1, max_size=4)))
    return np.array(draw(st.lists(st.one_of(values, pool), min_size=n, max_size=n)), np.float16)


@given(
    confidences(),
    st.floats(min_value=-3, max_value=3),
    st.floats(min_value=0, max_value=1),
    st.sampled_from(["llama", "qwen2", "qwen3moe", "gemma3"]),
)
@settings(deadline=None)
def test_selection_invariants(
    confidence: np.ndarray[Any, np.dtype[np.float16]], lam: float, ratio: float, family: str
) -> None:
    n_layer = len(confidence) + 2
    chosen = select_layers(confidence, n_layer, lam, ConfLayersSettings(skip_ratio=ratio), family)
    assert list(chosen.skip_layers) == sorted(set(chosen.skip_layers))
    assert all(1 <= layer <= n_layer - 2 for layer in chosen.skip_layers)
    assert abs(chosen.next_lambda - lam) <= 0.05 + 1e-12
    assert len(chosen.windows) == len(chosen.thresholds) == len(confidence)
    assert min(chosen.windows) >= 2
    assert np.isfinite(chosen.thresholds).all()


L = 16  # 14 candidates; at ratio 0.4 a set of int(5.6) + 1 = 6 is judged
SMALL = ConfLayersSettings(search_interval=4, context_window=8, max_opt_iter=3)


def probe(dips: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Confidences whose selection is exactly `dips`, when these are apart from one another."""
    attn = np.full(L, 0.5, dtype=np.float32)
    attn[list(dips)] = 0.1
    return attn, np.full(L, 0.25, dtype=np.float32)


SIX = (1, 3, 5, 7, 9, 11)
EVEN = (2, 4, 6, 8, 10, 12)


def proposed(dips: tuple[int, ...] = SIX, config: ConfLayersSettings = SMALL) -> ConfLayersSearch:
    """A search that has just taken its first proposal."""
    search = ConfLayersSearch(L, "llama", config)
    search.observe_round(4, 4, 10)
    search.propose(*probe(dips))
    assert search.skip_set == dips
    return search


def play(search: ConfLayersSearch, rounds: list[tuple[int, int]]) -> None:
    for drafted, accepted in rounds:
        search.observe_round(drafted, accepted, 100)


def test_published_defaults() -> None:
    d = ConfLayersSettings()
    assert (d.skip_ratio, d.search_interval, d.context_window, d.max_score) == (0.4, 25, 32, 0.95)
    assert (d.lambda_step, d.initial_lambda, d.max_opt_iter) == (0.05, 0.0, 1000)
    assert (d.stop_threshold, d.max_draft) == (0.8, 25)
    assert d.smallest_set(32) == 13


def test_starts_with_the_odd_candidates() -> None:
    assert ConfLayersSearch(8, "llama").skip_set == (1, 3, 5)
    assert ConfLayersSearch(9, "llama").skip_set == (1, 3, 5, 7)
    assert not ConfLayersSearch(9, "llama").wants_probe


def test_the_first_probe_waits_for_more_than_the_window_and_one() -> None:
    search = ConfLayersSearch(L, "llama", SMALL)
    search.observe_round(4, 4, 9)
    assert not search.wants_probe
    search.observe_round(4, 4, 10)
    assert search.wants_probe
    assert search.context_window == 8


def test_a_new_text_withdraws_the_wish_until_its_window_is_full() -> None:
    search = ConfLayersSearch(L, "llama", SMALL)
    search.observe_round(4, 4, 10)
    search.observe_round(4, 4, 3)
    assert not search.wants_probe
    search.observe_round(4, 4, 11)
    assert search.wants_probe


def test_propose_takes_the_selection_and_moves_lambda() -> None:
    search = proposed((2, 8))
    assert search.skip_set == (2, 8)
    assert search.lam == pytest.approx(-0.05)
    assert search.proposals == 1
    assert not search.wants_probe


def test_first_and_last_layer_are_never_taken_from_a_probe() -> None:
    search = ConfLayersSearch(L, "llama", SMALL)
    attn, mlp = probe(SIX)
    attn[0] = attn[-1] = mlp[0] = mlp[-1] = np.nan
    search.propose(attn, mlp)
    assert search.skip_set == SIX


def test_a_set_that_is_too_small_is_replaced_after_the_next_round() -> None:
    search = proposed((2, 8))
    search.observe_round(4, 4, 100)
    assert search.wants_probe
    assert search.best_set == ()


def test_a_better_set_becomes_the_best_and_a_worse_one_does_not() -> None:
    search = proposed(SIX)
    play(search, [(5, 3), (5, 3), (5, 2)])
    assert not search.wants_probe and not search.best_set
    play(search, [(5, 2)])
    assert search.best_set == SIX and search.best_count == 2.5
    assert search.wants_probe and not search.finished
    search.propose(*probe(EVEN))
    assert search.skip_set == EVEN
    play(search, [(5, 2), (5, 2), (5, 3), (5, 3)])  # 2.5 again: not above the best
    assert search.best_set == SIX and search.wants_probe


def test_stops_at_a_set_that_is_good_in_count_and_score() -> None:
    search = proposed(SIX)
    play(search, [(5, 5), (6, 6), (4, 4), (5, 5)])
    assert search.finished and not search.wants_probe
    assert search.skip_set == search.best_set == SIX
    assert search.best_count == 5.0
    play(search, [(5, 0)] * 20)
    search.propose(*probe(EVEN))
    assert search.skip_set == SIX and not search.wants_probe


@pytest.mark.parametrize(
    "rounds",
    [
        [(4, 4)] * 4,  # count exactly 4 is not above 4
        [(20, 19)] * 4,  # score exactly 0.95 is not above 0.95
    ],
)
def test_does_not_stop_at_the_limits_themselves(rounds: list[tuple[int, int]]) -> None:
    search = proposed(SIX)
    play(search, rounds)
    assert not search.finished and search.wants_probe and search.best_set == SIX


def test_the_score_is_the_mean_of_ratios_not_the_ratio_of_sums() -> None:
    search = proposed(SIX)
    play(search, [(1, 0), (25, 25), (25, 25), (25, 25)])  # 75/76 > 0.95, mean 0.75
    assert not search.finished


def test_gives_up_halfway_under_one_accepted_token() -> None:
    search = proposed(SIX)
    play(search, [(5, 0)])
    assert not search.wants_probe
    play(search, [(5, 1)])
    assert search.wants_probe and search.best_set == ()


def test_one_accepted_token_a_round_is_not_given_up() -> None:
    search = proposed(SIX)
    play(search, [(5, 2), (5, 0)])
    assert not search.wants_probe
    play(search, [(5, 0), (5, 0)])
    assert search.best_set == SIX and search.best_count == 0.5


def test_halfway_of_the_default_interval_is_twelve_rounds() -> None:
    search = proposed(SIX, ConfLayersSettings())
    assert not search.wants_probe
    search.observe_round(4, 4, 100)
    search.propose(*probe(SIX))
    play(search, [(3, 0)] * 11)
    assert not search.wants_probe
    play(search, [(3, 0)])
    assert search.wants_probe


def test_lists_start_empty_after_a_proposal() -> None:
    search = proposed(SIX)
    play(search, [(5, 1), (5, 1)])
    search.propose(*probe(EVEN))
    play(search, [(5, 3), (5, 3), (5, 3)])
    assert not search.wants_probe
    play(search, [(5, 3)])
    assert search.best_count == 3.0


def test_after_the_last_proposal_the_best_set_is_used() -> None:
    search = proposed(SIX)
    play(search, [(5, 3)] * 4)
    search.propose(*probe(EVEN))
    play(search, [(5, 2)] * 4)
    assert search.wants_probe
    search.propose(*probe((3, 5, 7, 9, 11, 13)))
    assert search.finished and search.skip_set == SIX


def test_without_any_judged_set_the_search_ends_empty() -> None:
    search = proposed(SIX, ConfLayersSettings(max_opt_iter=2, search_interval=4, context_window=8))
    play(search, [(5, 0), (5, 0)])
    search.propose(*probe(EVEN))
    assert search.finished and search.skip_set == ()


def test_rounds_without_a_draft_or_before_the_window_do_not_count() -> None:
    search = proposed(SIX)
    for _ in range(10):
        search.observe_round(0, 0, 100)
        search.observe_round(5, 0, 9)
    assert search.state()["counts"] == []
    assert not search.wants_probe


@pytest.mark.parametrize(("drafted", "accepted"), [(3, 4), (3, -1), (-1, -1)])
def test_impossible_rounds_are_refused(drafted: int, accepted: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        ConfLayersSearch(L, "llama").observe_round(drafted, accepted, 100)


def test_a_probe_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="confidences must be"):
        ConfLayersSearch(L, "llama").propose(np.zeros(L - 2), np.zeros(L - 2))


def test_models_with_nothing_to_drop_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 4"):
        ConfLayersSearch(3, "llama")


@pytest.mark.parametrize(
    "wrong",
    [{"skip_ratio": 1.5}, {"search_interval": 0}, {"max_score": float("nan")}, {"max_draft": 0}],
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        ConfLayersSettings(**wrong)


ROUNDS = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 25), st.integers(0, 60)), max_size=60
)


@given(ROUNDS, st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(1, 8))
@settings(deadline=None)
def test_search_invariants_and_round_trip(
    rounds: list[tuple[int, int, int]], seed: int, n_layer: int, interval: int
) -> None:
    config = ConfLayersSettings(search_interval=interval, context_window=8, max_opt_iter=12)
    search = ConfLayersSearch(n_layer, "qwen2", config)
    random = np.random.default_rng(seed)
    for a, b, tokens in rounds:
        before, done = search.lam, search.finished
        search.observe_round(max(a, b), min(a, b), tokens)
        if search.wants_probe:
            assert not done and tokens > 9
            search.propose(random.random(n_layer), random.random(n_layer))
        assert abs(search.lam - before) <= 0.05 + 1e-12
        assert list(search.skip_set) == sorted(set(search.skip_set))
        assert all(1 <= layer <= n_layer - 2 for layer in search.skip_set)
        assert search.proposals <= 12
        assert len(search.state()["counts"]) < interval
        assert not search.finished or search.skip_set == search.best_set

        saved = json.loads(json.dumps(search.state(), allow_nan=False))
        twin = ConfLayersSearch.from_state(saved, n_layer, "qwen2", config)
        assert twin.state() == search.state() == saved
        assert (twin.skip_set, twin.finished) == (search.skip_set, search.finished)

    # A restored search goes on exactly as the one that never stopped.
    twin = ConfLayersSearch.from_state(search.state(), n_layer, "qwen2", config)
    for _ in range(2 * interval):
        attn, mlp = random.random(n_layer), random.random(n_layer)
        for one in (search, twin):
            one.observe_round(6, 3, 100)
            if one.wants_probe:
                one.propose(attn, mlp)
        assert twin.state() == search.state()


def test_numpy_counts_stay_json_able() -> None:
    search = proposed(SIX)
    accepted: Any = np.int64(3)
    search.observe_round(5, accepted, 100)
    assert json.loads(json.dumps(search.state()))["counts"] == [3]


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "swift"},
        {"n_layer": L + 1},
        {"family": "qwen2"},
        {"skip_set": [0, 3]},
        {"skip_set": [L - 1]},
        {"best_set": [5, 3]},
        {"skip_set": [3, 3]},
        {"skip_set": ["3"]},
        {"skip_set": None},
        {"lambda": "0.1"},
        {"lambda": float("inf")},
        {"scores": [0.5]},
        {"counts": [-1], "scores": [0.5]},
        {"proposals": 1.5},
        {"due": 1},
        {"finished": None},
    ],
)
def test_a_damaged_state_is_refused_in_one_line(damage: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="cannot be used") as caught:
        ConfLayersSearch.from_state(proposed().state() | damage, L, "llama", SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(proposed().state()))
def test_a_state_with_a_missing_entry_is_refused(name: str) -> None:
    state = proposed().state()
    del state[name]
    with pytest.raises(BadInput, match=f"`{name}`"):
        ConfLayersSearch.from_state(state, L, "llama", SMALL)
