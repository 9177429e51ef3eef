"""The dynamic programmes of CLaSp and KnapSpec against every set there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.engine.session import NO_MASK, LayerMask
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import expected_tokens
from edge_conflayers.layer_search.published.clasp import ClaspSearch, ClaspSettings, choose_layers
from edge_conflayers.layer_search.published.knapspec import (
    KnapSpecSearch,
    KnapSpecSettings,
    choose,
    knapsack,
    sublayers,
)
from edge_conflayers.layer_search.published.similar_paths import (
    Kind,
    Part,
    States,
    best_paths,
    similarity,
)

Run = Callable[[States, int, Kind], States]


def orthogonal(gains: Sequence[float], tokens: int = 1) -> tuple[States, Run]:
    """A model whose part i adds ``gains[i]`` in a direction of its own, whatever the states are: a
    path's cosine to the full model then grows with the sum of squares of what it has run, so the
    best set is known and best paths go on from best paths. Sub-layers count as 2 * layer, + 1."""
    width = len(gains) + 1
    start = np.zeros((tokens, width), np.float32)
    start[:, 0] = 1.0

    def run(states: States, layer: int, kind: Kind) -> States:
        index = layer if kind == "layer" else 2 * layer + (kind == "mlp")
        moved = states.copy()
        moved[..., 1 + index] += np.float32(gains[index])
        return moved

    return start, run


def run_all(start: States, parts: Sequence[Part], skipped: Sequence[int], run: Run) -> States:
    states = start[None]
    for i, part in enumerate(parts):
        if i not in skipped:
            states = run(states, part.layer, part.kind)
    return states[0]


_GAINS = st.lists(st.floats(0.1, 3.0), min_size=2, max_size=7)


@settings(max_examples=60, deadline=None)
@given(gains=_GAINS, data=st.data())
def test_clasp_finds_the_best_set(gains: list[float], data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, len(gains)))
    start, run = orthogonal(gains)
    parts = [Part(layer, "layer") for layer in range(len(gains))]
    full = run_all(start, parts, (), run)

    def closeness(skipped: Sequence[int]) -> float:
        return similarity(run_all(start, parts, skipped, run), full)

    found = choose_layers(start, len(gains), budget, run)
    assert len(found) == budget and list(found) == sorted(set(found))
    best = max(closeness(skipped) for skipped in combinations(range(len(gains)), budget))
    assert closeness(found) == pytest.approx(best, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    gains=st.lists(st.floats(0.1, 3.0), min_size=2, max_size=8).filter(lambda g: len(g) % 2 == 0),
    attention=st.integers(1, 4),
    mlp=st.integers(1, 4),
    most=st.floats(0.2, 1.0),
)
def test_knapspec_finds_the_best_set_of_every_cost(
    gains: list[float], attention: int, mlp: int, most: float
) -> None:
    start, run = orthogonal(gains, tokens=2)
    parts = sublayers(len(gains) // 2, float(attention), float(mlp))
    full = run_all(start, parts, (), run)
    limit = int(most * sum(part.saves for part in parts))
    found = best_paths(start, parts, run, most=limit)
    best: dict[float, float] = {}
    for size in range(1, len(parts) + 1):
        for skipped in combinations(range(len(parts)), size):
            saved = sum(parts[i].saves for i in skipped)
            if saved <= limit:
                closeness = similarity(run_all(start, parts, skipped, run), full)
                best[saved] = max(best.get(saved, -1.0), closeness)
    assert found[0].skipped == () and np.array_equal(found[0].states, full)
    assert [path.saved for path in found[1:]] == sorted(best)
    for path in found[1:]:
        assert path.similarity == pytest.approx(best[path.saved], abs=1e-6)
        assert path.saved == sum(parts[i].saves for i in path.skipped)
        np.testing.assert_allclose(path.states, run_all(start, parts, path.skipped, run))


def test_layers_that_depend_on_what_was_skipped() -> None:
    """A rotation and its inverse: skipping both changes nothing, skipping one a lot."""
    turn = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)
    layers = [np.eye(2) * 1.1, turn, turn.T, np.eye(2) * 0.9]

    def run(states: States, layer: int, kind: Kind) -> States:
        return (states @ layers[layer]).astype(np.float32)

    start = np.array([[1.0, 0.5]], np.float32)
    assert choose_layers(start, 4, 2, run) in [(0, 3), (1, 2)]
    assert choose_layers(start, 4, 1, run) in [(0,), (3,)]
    # The way to (1, 2) leads through states at a right angle to the full model's.
    parts = [Part(layer, "layer") for layer in range(4)]
    paths = best_paths(start, parts, run, most=4, threshold=0.5)
    assert all(path.skipped in [(), (0,), (3,), (0, 3)] for path in paths)


def test_amounts_that_are_not_told_apart() -> None:
    start, run = orthogonal([1.0, 2.0, 0.5, 0.1])
    parts = sublayers(2, 0.3, 0.5)
    coarse = knapsack(start, parts, run, KnapSpecSettings(levels=2, most_saved=1.0))
    assert len(coarse) <= 4
    fine = knapsack(start, parts, run, KnapSpecSettings(levels=1000, most_saved=0.5))
    assert max(path.saved for path in fine) == pytest.approx(0.8)


def test_a_mask_of_a_path() -> None:
    start, run = orthogonal([3.0, 0.1, 0.2, 3.0])
    parts = sublayers(2, 1.0, 1.0)
    path = best_paths(start, parts, run, most=2.0, least=2.0)[-1]
    assert path.mask(parts) == LayerMask(attention=frozenset({1}), mlp=frozenset({0}))


@settings(max_examples=60, deadline=None)
@given(
    sets=st.lists(st.tuples(st.floats(0.05, 0.9), st.floats(0.0, 1.0)), min_size=1, max_size=6),
    slope=st.floats(0.0, 0.6),
)
def test_set_and_length_have_the_most_tokens_a_time(
    sets: list[tuple[float, float]], slope: float
) -> None:
    found = [(LayerMask.layers({i}), saved, alpha) for i, (saved, alpha) in enumerate(sets)]

    def verify(n: int) -> float:
        return 1.0 + slope * (n - 1)

    chosen = choose(found, verify, 7)
    speeds = {
        (i, gamma): sum(alpha**k for k in range(gamma + 1))
        / (gamma * (1 - saved) + verify(gamma + 1))
        for i, (saved, alpha) in enumerate(sets)
        for gamma in range(1, 8)
    }
    assert chosen.speed == pytest.approx(max(1.0, *speeds.values()))
    if chosen.gamma == 0:
        assert chosen.mask == NO_MASK
    else:
        (layer,) = chosen.mask.attention
        assert speeds[layer, chosen.gamma] == pytest.approx(chosen.speed)


@given(alpha=st.floats(0.0, 1.0), gamma=st.integers(0, 20))
def test_expected_tokens_are_a_sum(alpha: float, gamma: int) -> None:
    assert expected_tokens(alpha, gamma) == pytest.approx(
        sum(alpha**k for k in range(gamma + 1)), rel=1e-6
    )


def test_settings_that_make_no_sense() -> None:
    for kind in ({"skip_ratio": 0.0}, {"interval": 0}, {"stop_threshold": 1.5}, {"max_draft": 0}):
        with pytest.raises(BadInput):
            ClaspSettings(**kind)  # type: ignore[arg-type]
    for kind in ({"threshold": 2.0}, {"most_saved": 0.0}, {"levels": 0}, {"tokens": 0}):
        with pytest.raises(BadInput):
            KnapSpecSettings(**kind)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="not one layer to skip"):
        ClaspSearch(2)


COSTS = StepCosts(
    (Measurement(0, 1.0, 0.1, 0.2, {2: 1.0}), Measurement(1000, 1.0, 1.1, 0.2, {2: 1.0}))
)


def test_attention_costs_more_in_a_long_context() -> None:
    assert CostsAtContext(COSTS, 100).attention == pytest.approx(0.2)


def test_states_of_the_searches() -> None:
    state = {"kind": "clasp", "n_layer": 5, "mask": {"attention": [1, 2], "mlp": [1, 2]}}
    assert ClaspSearch.from_state(state, 5).state() == state
    other = {**state, "kind": "knapspec", "mask": {"attention": [1], "mlp": []}}
    other |= {"gamma": 3, "speed": 1.25}
    restored = KnapSpecSearch.from_state(other, 5, COSTS)
    assert restored.state() == other and restored.draft_length == 3
    for damage in (
        {"kind": "swift"},
        {"n_layer": 6},
        {"mask": {"attention": [7], "mlp": []}},
        {"mask": {"attention": ["a"], "mlp": []}},
        {"mask": None},
    ):
        with pytest.raises(BadInput, match="cannot be used"):
            ClaspSearch.from_state({**state, **damage}, 5)
        with pytest.raises(BadInput, match="cannot be used"):
            KnapSpecSearch.from_state({**other, **damage}, 5, COSTS)
    with pytest.raises(BadInput, match="cannot be used"):
        KnapSpecSearch.from_state({k: v for k, v in other.items() if k != "gamma"}, 5, COSTS)
