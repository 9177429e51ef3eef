"""Prices for the objective."""

from __future__ import annotations

import pytest
from steps import Tiny

from edge_conflayers.costs.at_context import AtContext, guessed_prices
from edge_conflayers.costs.prices import Prices, PricesAt
from edge_conflayers.engine.session import NO_MASK, LayerMask


def test_prices_at_a_context() -> None:
    mask = LayerMask(attention=frozenset({1, 2, 3}), mlp=frozenset({2}))
    short = PricesAt(100, 1.0, 0.01, 0.02, {2: 1.1, 4: 1.5})
    long = PricesAt(200, 1.2, 0.03, 0.02, {2: 1.2, 4: 1.8})
    prices = AtContext(Prices((short, long)))
    prices.context = 100
    assert prices.c(NO_MASK) == 1.0
    assert prices.c(mask) == pytest.approx(0.95)
    assert [prices.v(n) for n in (1, 2, 3)] == pytest.approx([1, 1.1, 1.3])
    prices.context = 150
    assert prices.c(mask) == pytest.approx((1.1 - 3 * 0.02 - 0.02) / 1.1)
    assert prices.v(4) == pytest.approx(1.65)
    prices.saved_seconds = 0.11
    assert prices.c(NO_MASK) == pytest.approx(0.9)
    assert 0 < prices.c(LayerMask.layers(range(99))) < 0.1


def test_a_guess_counts_weights(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)  # width 64, 4 heads, 2 for keys, 128 inside, 320 tokens
    layer_attention, layer_mlp = 64 * 16 * 2 * 6, 3 * 64 * 128
    whole = 6 * (layer_attention + layer_mlp) + 64 * 320
    prices = AtContext(guessed_prices(model), 700)
    assert prices.c(LayerMask(attention=frozenset({2}))) == pytest.approx(
        1 - layer_attention / whole
    )
    assert prices.c(LayerMask(mlp=frozenset({2, 3}))) == pytest.approx(1 - 2 * layer_mlp / whole)
    assert prices.v(1) == 1.0 < prices.v(2) < prices.v(8) < 2
    assert Prices.from_json(prices.prices.to_json()) == prices.prices
