"""DEL's choice and what it learns, without a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.drafters.dynamic_exit import (
    DelDrafter,
    DelSettings,
    ExitRecord,
    choose_exit,
    layers_run,
)
from edge_conflayers.drafters.early_exit import LayerSkipDrafter, LayerSkipSettings
from edge_conflayers.errors import BadInput

_ALPHAS = st.dictionaries(st.integers(1, 15), st.floats(0.0, 1.0), min_size=1, max_size=6)


@given(alphas=_ALPHAS, most=st.integers(0, 12))
def test_the_choice_has_the_most_tokens_a_layer(alphas: dict[int, float], most: int) -> None:
    def tokens_per_layer(layer: int, gamma: int) -> float:
        tokens = sum(alphas[layer] ** k for k in range(gamma + 1))
        return tokens / ((gamma + 1) * layer + (16 - layer))

    layer, gamma = choose_exit(alphas, most, layers_run(16))
    best = max(tokens_per_layer(each, g) for each in alphas for g in range(most + 1))
    assert tokens_per_layer(layer, gamma) == pytest.approx(best, rel=1e-9)


@given(alphas=_ALPHAS, costs=st.lists(st.floats(0.1, 9.0), min_size=16 * 8, max_size=16 * 8))
def test_any_cost(alphas: dict[int, float], costs: list[float]) -> None:
    def cost(layer: int, gamma: int) -> float:
        return costs[layer * 8 + gamma]

    found = choose_exit(alphas, 7, cost)
    value = {
        (layer, gamma): sum(alpha**k for k in range(gamma + 1)) / cost(layer, gamma)
        for layer, alpha in alphas.items()
        for gamma in range(8)
    }
    assert value[found] == pytest.approx(max(value.values()), rel=1e-9)


def test_known_choices() -> None:
    cost = layers_run(16)
    # An exit that is always right, after 2 of 16 layers: as long as may be.
    assert choose_exit({2: 1.0, 8: 1.0}, 6, cost) == (2, 6)
    # Never right: nothing is drafted.
    assert choose_exit({2: 0.0, 8: 0.0}, 6, cost)[1] == 0
    # 16 layers for 1 token, 18 for 1.5, 20 for 1.75, 22 for 1.875, 24 for 1.9375.
    assert choose_exit({2: 0.5}, 6, cost) == (2, 2)


def test_a_record_fades() -> None:
    record = ExitRecord(0.5)
    assert record.alpha is None and record.threshold(0.4) == 0.4
    record.add(0.9, True)
    assert record.alpha == 1.0 and record.threshold(0.4) == 0.4
    record.add(0.3, False)
    assert record.alpha == pytest.approx(0.5 / 1.5)
    assert record.threshold(0.4) == pytest.approx((0.9 + 0.3) / 2)
    record.add(0.7, True)
    assert record.alpha == pytest.approx(1.25 / 1.75)
    matched = (0.25 * 0.9 + 0.7) / 1.25
    assert record.threshold(0.4) == pytest.approx((matched + 0.3) / 2)


def test_sure_when_wrong() -> None:
    record = ExitRecord(1.0)
    record.add(0.2, True)
    record.add(0.9, False)
    assert record.threshold(0.4) == 0.4


def test_a_state_goes_on() -> None:
    one = DelDrafter(8)
    for layer, record in one.records.items():
        for i in range(9):
            record.add(0.1 * i, i % 8 < layer)
    other = DelDrafter(8)
    other.resume(one.state())
    assert other.state() == one.state()
    assert (other.exit_layer, other.gamma) == choose_exit(
        {layer: record.alpha or 0.0 for layer, record in one.records.items()}, 12, layers_run(8)
    )
    damaged: tuple[dict[str, Any], ...] = (
        {},
        {"kind": "del", "exits": {}},
        {**one.state(), "kind": "clasp"},
        {"kind": "del", "exits": {str(layer): [[1], [2]] for layer in one.records}},
        {"kind": "del", "exits": {str(layer): [[1, -1], [2, 2]] for layer in one.records}},
    )
    for state in damaged:
        with pytest.raises(BadInput, match="cannot be used"):
            DelDrafter(8).resume(state)


def test_exits() -> None:
    assert DelSettings().exits_of(32) == (4, 8, 12, 16, 20, 24, 28)
    assert DelSettings().exits_of(3) == (1, 2)
    assert DelSettings(exits=(5, 2)).exits_of(6) == (2, 5)
    assert LayerSkipSettings().exit_of(30) == 15
    for exits in ((), (0,), (3, 6)):
        with pytest.raises(BadInput, match="no exits"):
            DelDrafter(6, DelSettings(exits=exits))
    with pytest.raises(BadInput, match="no exits"):
        DelDrafter(1)
    for layer in (0, 6):
        with pytest.raises(BadInput, match="no exit after"):
            LayerSkipDrafter(6, LayerSkipSettings(exit_layer=layer))


def test_settings_that_make_no_sense() -> None:
    for kind in ({"decay": 0.0}, {"max_draft": 0}, {"shadow_interval": 0}, {"first_threshold": 2}):
        with pytest.raises(BadInput):
            DelSettings(**kind)  # type: ignore[arg-type]
    for other in ({"stop_threshold": -0.1}, {"max_draft": 0}):
        with pytest.raises(BadInput):
            LayerSkipSettings(**other)  # type: ignore[arg-type]
