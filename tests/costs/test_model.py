"""Costs of steps at any context length."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny

from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.engine.session import NO_MASK, LayerMask
from edge_conflayers.errors import BadInput

NEAR = Measurement(context=240, t1=0.04, attention=0.0005, mlp=0.001, v={2: 1.2, 4: 1.4, 8: 2.0})
FAR = Measurement(context=1040, t1=0.05, attention=0.0013, mlp=0.001, v={2: 1.3, 4: 1.6, 8: 2.4})
COSTS = StepCosts((NEAR, FAR))

positive = st.floats(1e-6, 1e3)


@st.composite
def costs(draw: st.DrawFn) -> StepCosts:
    contexts = draw(st.lists(st.integers(0, 5000), min_size=1, max_size=2, unique=True))
    sizes = draw(st.sets(st.integers(2, 32), min_size=1))
    at = [
        Measurement(
            *(context, draw(positive), draw(st.floats(0, 1)), draw(st.floats(0, 1))),
            {n: draw(positive) for n in sorted(sizes)},
        )
        for context in sorted(contexts)
    ]
    return StepCosts(tuple(at), draw(st.booleans()))


@given(costs())
def test_costs_survive_json(found: StepCosts) -> None:
    text = json.dumps(found.to_json(), allow_nan=False)
    assert StepCosts.from_json(json.loads(text)) == found


@pytest.mark.parametrize(
    "change",
    [
        {"at": []},
        {"at": None},
        {"at": [{"context": 3}]},
        {"at": [{**COSTS.to_json()["at"][0], "t1": 0}]},
        {"at": [{**COSTS.to_json()["at"][0], "mlp": -1}]},
        {"at": [{**COSTS.to_json()["at"][0], "v": {}}]},
        {"at": [{**COSTS.to_json()["at"][0], "v": {"x": 1}}]},
        {"at": [{**COSTS.to_json()["at"][0], "t1": float("nan")}]},
        {"at": [{**COSTS.to_json()["at"][0], "v": {"4": float("inf")}}]},
        {"at": COSTS.to_json()["at"][::-1]},
    ],
)
def test_damaged_costs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="measure again"):
        StepCosts.from_json({**COSTS.to_json(), **change})
    with pytest.raises(BadInput, match="missing required field"):
        StepCosts.from_json({})


def test_costs_grow_with_the_context() -> None:
    mask = LayerMask(attention=frozenset({1, 2, 3}), mlp=frozenset({3}))
    assert [COSTS.t1(n) for n in (240, 640, 1040)] == pytest.approx([0.04, 0.045, 0.05])
    assert COSTS.c(NO_MASK, 240) == 1
    assert COSTS.c(mask, 240) == pytest.approx(1 - 0.0025 / 0.04)
    assert COSTS.c(mask, 640) == pytest.approx(1 - (3 * 0.0009 + 0.001) / 0.045)
    assert COSTS.c(mask, 1040, saved_seconds=0.01) == pytest.approx(1 - 0.0149 / 0.05)
    assert COSTS.c(mask, 240, saved_seconds=1.0) == 0
    assert COSTS.v(4, 640) == pytest.approx(1.5)
    assert StepCosts((NEAR,)).t1(5000) == 0.04
    assert COSTS.t1(0) == pytest.approx(0.037)
    steep = StepCosts(
        (Measurement(200, 1.0, 0, 0, {2: 1.0}), Measurement(300, 3.0, 0, 0, {2: 1.0}))
    )
    assert steep.t1(0) == 0.5  # never next to nothing


def test_v_is_interpolated_and_goes_on() -> None:
    one = StepCosts((NEAR,))
    found = [one.v(n, 0) for n in (0, 1, 2, 3, 4, 6, 8, 12)]
    assert found == pytest.approx([1, 1, 1.2, 1.3, 1.4, 1.7, 2.0, 2.6])


@given(costs(), st.integers(0, 8000))
def test_more_tokens_never_cost_less(found: StepCosts, context: int) -> None:
    if len(found.at) == 1:
        ratios = [found.v(n, context) for n in range(1, 40)]
        assert ratios[0] == 1
        assert ratios == sorted(ratios)
    for p in found.at:
        assert found.t1(p.context) == pytest.approx(p.t1)
        assert found.v(1, p.context) == 1


def test_costs_at_a_context() -> None:
    mask = LayerMask(attention=frozenset({1, 2, 3}), mlp=frozenset({2}))
    short = Measurement(100, 1.0, 0.01, 0.02, {2: 1.1, 4: 1.5})
    long = Measurement(200, 1.2, 0.03, 0.02, {2: 1.2, 4: 1.8})
    costs = CostsAtContext(StepCosts((short, long)))
    costs.context = 100
    assert costs.c(NO_MASK) == 1.0
    assert costs.c(mask) == pytest.approx(0.95)
    assert [costs.v(n) for n in (1, 2, 3)] == pytest.approx([1, 1.1, 1.3])
    costs.context = 150
    assert costs.c(mask) == pytest.approx((1.1 - 3 * 0.02 - 0.02) / 1.1)
    assert costs.v(4) == pytest.approx(1.65)
    costs.saved_seconds = 0.11
    assert costs.c(NO_MASK) == pytest.approx(0.9)
    assert 0 < costs.c(LayerMask.layers(range(99))) < 0.1


def test_a_guess_counts_weights(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)  # width 64, 4 heads, 2 for keys, 128 inside, 320 tokens
    layer_attention, layer_mlp = 64 * 16 * 2 * 6, 3 * 64 * 128
    whole = 6 * (layer_attention + layer_mlp) + 64 * 320
    costs = CostsAtContext(costs_by_weights(model), 700)
    assert costs.c(LayerMask(attention=frozenset({2}))) == pytest.approx(
        1 - layer_attention / whole
    )
    assert costs.c(LayerMask(mlp=frozenset({2, 3}))) == pytest.approx(1 - 2 * layer_mlp / whole)
    assert costs.v(1) == 1.0 < costs.v(2) < costs.v(8) < 2
    assert StepCosts.from_json(costs.costs.to_json()) == costs.costs
