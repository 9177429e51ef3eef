"""LayerSkip's training recipe against the paper's formulas (arXiv 2404.16710, section 4)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.errors import BadInput
from edge_conflayers.train.recipe import Recipe, dropout_rates, exit_weight

layers = st.integers(2, 80)
shares = st.floats(0, 1)


@given(layers, st.floats(0, 0.9), shares)
def test_layer_dropout_is_the_papers(n_layer: int, p_max: float, progress: float) -> None:
    """p(l, t) = S(t) D(l) p_max with D(l) = exp(l ln2 / (L - 1)) - 1."""
    constant = dropout_rates(n_layer, p_max, progress)
    growing = dropout_rates(n_layer, p_max, progress, "exp")
    for layer in range(n_layer):
        d = 2 ** (layer / (n_layer - 1)) - 1
        assert constant[layer] == pytest.approx(d * p_max)
        assert growing[layer] == pytest.approx((2**progress - 1) * d * p_max)
    assert constant[0] == 0 and constant[-1] == pytest.approx(p_max)
    assert constant == sorted(constant)


@given(layers, st.floats(0.01, 1))
def test_exits_weigh_what_the_paper_says(n_layer: int, scale: float) -> None:
    """e(l) = e_scale * sum(i up to l); the last: L - 1 + e_scale * sum(i up to L - 2)."""
    for layer in range(n_layer - 1):
        assert exit_weight(layer + 1, n_layer, scale) == pytest.approx(
            scale * sum(range(layer + 1))
        )
    last = n_layer - 1 + scale * sum(range(n_layer - 1))
    assert exit_weight(n_layer, n_layer, scale) == pytest.approx(last)


@given(layers, st.data())
def test_weights_sum_to_one_and_grow_with_depth(n_layer: int, data: st.DataObject) -> None:
    recipe = Recipe(n_layer, tuple(range(1, n_layer)))
    some = data.draw(st.lists(st.sampled_from(recipe.exits), unique=True).map(sorted))
    weights = recipe.loss_weights(some)
    assert list(weights) == [*some, n_layer]
    assert sum(weights.values()) == pytest.approx(1)
    assert list(weights.values()) == sorted(weights.values())


@given(layers, st.integers(1, 40))
def test_rotation_trains_every_exit_once_in_an_interval(n_layer: int, interval: int) -> None:
    recipe = Recipe(n_layer, tuple(range(1, n_layer)), interval=interval)
    rounds = min(interval, n_layer - 1)
    for start in (0, 5):
        enabled = [exit for i in range(rounds) for exit in recipe.enabled(start + i, 0.5)]
        assert sorted(enabled) == list(recipe.exits)
    for step in range(3):
        assert {b - a for a, b in pairwise(recipe.enabled(step, 0.0))} <= {rounds}
    moved = set(recipe.enabled(1, 0.0)) - {1}
    assert moved <= {exit + 1 for exit in recipe.enabled(0, 0.0)} | {1}


@given(layers)
def test_the_gradual_curriculum_adds_exits_from_the_last_down(n_layer: int) -> None:
    """One exit more every T / 2L steps, so that all are trained from half of the steps on."""
    exits = tuple(range(1, n_layer))
    recipe = Recipe(n_layer, exits, curriculum="gradual")
    assert recipe.enabled(0, 0.0) == ()
    for i in range(len(exits) + 1):
        progress = i / (2 * len(exits)) + 1e-9
        assert recipe.enabled(0, progress) == exits[len(exits) - i :]
    assert recipe.enabled(0, 0.5) == recipe.enabled(0, 1.0) == exits


def test_without_a_curriculum_all_exits_are_trained() -> None:
    assert Recipe(8, (2, 4), curriculum="none").enabled(3, 0.0) == (2, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"exits": ()},
        {"exits": (0,)},
        {"exits": (8,)},
        {"layer_dropout": 1.0},
        {"exit_scale": 0.0},
        {"exit_scale": math.inf},
        {"interval": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Recipe(**{"n_layer": 8, "exits": (4,), **wrong})  # type: ignore[arg-type]
