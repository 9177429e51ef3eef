"""Prices drawn from little knowledge."""

from __future__ import annotations

import pytest
from steps import Tiny

from edge_conflayers.cost import Costs, GraphSwitch, SkipCost
from edge_conflayers.search.prices import LinearPrices, guessed_prices, measured_prices
from edge_conflayers.session import NO_MASK, LayerMask


def test_v_is_linear_between_and_beyond_known_points() -> None:
    prices = LinearPrices(0.01, 0.02, {1: 1.0, 2: 1.1, 4: 1.5, 8: 1.9})
    assert [prices.v(n) for n in (1, 2, 3, 4, 6, 8)] == pytest.approx([1, 1.1, 1.3, 1.5, 1.7, 1.9])
    assert prices.v(12) == pytest.approx(2.3)
    assert LinearPrices(0, 0, {1: 1.0}).v(5) == 1.0


def test_sublayers_are_priced_by_kind() -> None:
    prices = LinearPrices(0.01, 0.02, {1: 1.0})
    assert prices.c(NO_MASK) == 1.0
    mask = LayerMask(attention=frozenset({1, 2, 3}), mlp=frozenset({2}))
    assert prices.c(mask) == pytest.approx(0.95)
    assert 0 < prices.c(LayerMask.layers(range(60))) < 0.1


def test_a_guess_counts_weights(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)  # width 64, 4 heads, 2 for keys, 128 inside, 320 tokens
    layer_attention, layer_mlp = 64 * 16 * 2 * 6, 3 * 64 * 128
    whole = 6 * (layer_attention + layer_mlp) + 64 * 320
    prices = guessed_prices(model)
    assert prices.attention == pytest.approx(layer_attention / whole)
    assert prices.mlp == pytest.approx(layer_mlp / whole)
    assert prices.v(1) == 1.0 < prices.v(2) < prices.v(8) < 2


def test_measured_costs_are_met(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    ladder = (SkipCost((), 1.0), SkipCost((2,), 0.9), SkipCost((1, 2, 3, 4), 0.6))
    costs = Costs(5.0, {2: 1.2, 4: 1.5}, ladder, 128, 1, GraphSwitch(0, 0, 0))
    prices = measured_prices(model, costs)
    assert prices.c(LayerMask.layers({1, 2, 3, 4})) == pytest.approx(0.6)
    assert prices.c(LayerMask.layers({3})) == pytest.approx(0.9)
    assert prices.attention / prices.mlp == pytest.approx(64 * 16 * 2 * 6 / (3 * 64 * 128))
    assert prices.v(3) == pytest.approx(1.35)
    unmasked = Costs(5.0, {2: 1.2}, (), 128, 1, GraphSwitch(0, 0, 0))
    assert measured_prices(model, unmasked).attention == guessed_prices(model).attention
