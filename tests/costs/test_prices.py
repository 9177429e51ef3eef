"""Prices of masks and of batches, on synthetic timings and on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, random_tokens

from edge_conflayers.costs.prices import QUICK_BUDGET, Prices, PricesAt, measure_prices
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput

N_LAYER = 12
NEAR = PricesAt(context=240, t1=0.04, attention=0.0005, mlp=0.001, v={2: 1.2, 4: 1.4, 8: 2.0})
FAR = PricesAt(context=1040, t1=0.05, attention=0.0013, mlp=0.001, v={2: 1.3, 4: 1.6, 8: 2.4})
PRICES = Prices((NEAR, FAR))

positive = st.floats(1e-6, 1e3)
ratios = st.dictionaries(st.integers(2, 32), st.floats(1, 10), min_size=1)


@st.composite
def prices(draw: st.DrawFn) -> Prices:
    contexts = draw(st.lists(st.integers(0, 5000), min_size=1, max_size=2, unique=True))
    sizes = draw(st.sets(st.integers(2, 32), min_size=1))
    at = [
        PricesAt(
            *(context, draw(positive), draw(st.floats(0, 1)), draw(st.floats(0, 1))),
            {n: draw(positive) for n in sorted(sizes)},
        )
        for context in sorted(contexts)
    ]
    return Prices(tuple(at), draw(st.booleans()))


@given(prices())
def test_prices_survive_json(found: Prices) -> None:
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Prices.from_json(json.loads(text)) == found


@pytest.mark.parametrize(
    "change",
    [
        {"at": []},
        {"at": None},
        {"at": [{"context": 3}]},
        {"at": [{**PRICES.to_json()["at"][0], "t1": 0}]},
        {"at": [{**PRICES.to_json()["at"][0], "mlp": -1}]},
        {"at": [{**PRICES.to_json()["at"][0], "v": {}}]},
        {"at": [{**PRICES.to_json()["at"][0], "v": {"x": 1}}]},
        {"at": [{**PRICES.to_json()["at"][0], "t1": float("nan")}]},
        {"at": [{**PRICES.to_json()["at"][0], "v": {"4": float("inf")}}]},
        {"at": PRICES.to_json()["at"][::-1]},
    ],
)
def test_damaged_prices_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="measure them again"):
        Prices.from_json({**PRICES.to_json(), **change})
    with pytest.raises(BadInput, match="is missing"):
        Prices.from_json({})


def test_prices_grow_with_the_context() -> None:
    mask = LayerMask(attention=frozenset({1, 2, 3}), mlp=frozenset({3}))
    assert [PRICES.t1(n) for n in (240, 640, 1040)] == pytest.approx([0.04, 0.045, 0.05])
    assert PRICES.c(NO_MASK, 240) == 1
    assert PRICES.c(mask, 240) == pytest.approx(1 - 0.0025 / 0.04)
    assert PRICES.c(mask, 640) == pytest.approx(1 - (3 * 0.0009 + 0.001) / 0.045)
    assert PRICES.c(mask, 1040, saved_seconds=0.01) == pytest.approx(1 - 0.0149 / 0.05)
    assert PRICES.c(mask, 240, saved_seconds=1.0) == 0
    assert PRICES.v(4, 640) == pytest.approx(1.5)
    assert Prices((NEAR,)).t1(5000) == 0.04
    assert PRICES.t1(0) == pytest.approx(0.037)
    steep = Prices((PricesAt(200, 1.0, 0, 0, {2: 1.0}), PricesAt(300, 3.0, 0, 0, {2: 1.0})))
    assert steep.t1(0) == 0.5  # never next to nothing


def test_v_is_interpolated_and_goes_on() -> None:
    one = Prices((NEAR,))
    found = [one.v(n, 0) for n in (0, 1, 2, 3, 4, 6, 8, 12)]
    assert found == pytest.approx([1, 1, 1.2, 1.3, 1.4, 1.7, 2.0, 2.6])


@given(prices(), st.integers(0, 8000))
def test_more_tokens_never_cost_less(found: Prices, context: int) -> None:
    if len(found.at) == 1:
        ratios = [found.v(n, context) for n in range(1, 40)]
        assert ratios[0] == 1
        assert ratios == sorted(ratios)
    for p in found.at:
        assert found.t1(p.context) == pytest.approx(p.t1)
        assert found.v(1, p.context) == 1


class Synthetic:
    """A session whose steps take the time that a formula says."""

    def __init__(self, n_ctx: int = 2048, max_outputs: int = 32, maskable: bool = True) -> None:
        self.model = SimpleNamespace(n_layer=N_LAYER, repeated=lambda text, n: [1] * n)
        self.n_ctx = n_ctx
        self.max_outputs = max_outputs
        self.maskable = maskable
        self.now = 0.0
        self.tokens = 5
        self.mask = NO_MASK
        self.slow = [1.0]

    def clock(self) -> float:
        return self.now

    def __len__(self) -> int:
        return self.tokens

    def clear(self) -> None:
        self.tokens = 0

    def rollback(self, length: int) -> None:
        self.tokens = length

    def set_mask(self, mask: LayerMask) -> None:
        if mask and not self.maskable:
            raise BadInput("this architecture cannot be served")
        self.mask = mask

    def read(self, tokens: Sequence[int]) -> None:
        self.now += 0.001 * len(tokens)
        self.tokens += len(tokens)
        assert self.tokens <= self.n_ctx

    def attention(self, n: int) -> float:
        return 0.0002 + 1e-6 * self.tokens + 1e-5 * n

    def step(self, tokens: Sequence[int], *, outputs: str) -> None:
        n = len(tokens)
        seconds = 0.004 + 0.002 * n  # the LM head
        seconds += (N_LAYER - len(self.mask.attention)) * self.attention(n)
        seconds += (N_LAYER - len(self.mask.mlp)) * (0.001 + 1e-4 * n)
        self.slow.append(self.slow.pop(0))
        self.now += seconds * self.slow[0]
        self.tokens += n
        assert self.tokens <= self.n_ctx

    def logits(self, index: int) -> None:
        pass

    def seconds(self, n: int, context: int) -> float:
        self.tokens, self.mask = context, NO_MASK
        before = self.now
        self.step([0] * n, outputs="all")
        return self.now - before


@pytest.mark.parametrize("quick", [True, False])
def test_synthetic_times_are_found_again(quick: bool) -> None:
    session = Synthetic()
    seen: list[tuple[int, int]] = []
    found = measure_prices(
        cast(Session, session),
        quick=quick,
        clock=session.clock,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert session.mask == NO_MASK and session.tokens == 0
    spent = session.now
    assert [p.context for p in found.at] == [240, 1008]
    for context in (240, 500, 1008, 2000):
        t1 = session.seconds(1, context)
        assert found.t1(context) == pytest.approx(t1)
        mask = LayerMask(attention=frozenset({1, 4, 5}), mlp=frozenset({2, 3}))
        session.tokens = context
        left = t1 - 3 * session.attention(1) - 2 * 0.0011
        assert found.c(mask, context) * t1 == pytest.approx(left)
    for n in (2, 4, 8, *([3, 16] if not quick else [])):
        for context in (240, 1008):
            v = session.seconds(n, context) / session.seconds(1, context)
            assert found.v(n, context) == pytest.approx(v)
    if quick:
        filling = 0.001 * 1008
        assert spent - filling < QUICK_BUDGET * found.t1(1008)


def test_a_slow_step_now_and_then_is_no_matter() -> None:
    session = Synthetic()
    session.slow = [1.0] * 12 + [5.0]
    found = measure_prices(cast(Session, session), quick=False, clock=session.clock)
    session.slow = [1.0]
    assert found.t1(240) == pytest.approx(session.seconds(1, 240))
    assert found.v(8, 1008) == pytest.approx(session.seconds(8, 1008) / session.seconds(1, 1008))


def test_a_model_that_no_mask_serves() -> None:
    session = Synthetic(maskable=False)
    found = measure_prices(cast(Session, session), clock=session.clock)
    assert not found.maskable
    assert found.c(LayerMask.layers({1, 2}), 500) == 1
    assert found.v(8, 240) > 1


@pytest.mark.parametrize(
    ("n_ctx", "contexts"), [(32, [16]), (300, [284]), (320, [240, 304]), (900, [240, 884])]
)
def test_small_sessions(n_ctx: int, contexts: list[int]) -> None:
    session = Synthetic(n_ctx)
    found = measure_prices(cast(Session, session), clock=session.clock)
    assert [p.context for p in found.at] == contexts


def test_sessions_that_are_too_small() -> None:
    for session in (Synthetic(15), Synthetic(max_outputs=1)):
        with pytest.raises(BadInput, match="too small"):
            measure_prices(cast(Session, session), clock=session.clock)
    few = measure_prices(cast(Session, Synthetic(max_outputs=4)))
    assert set(few.at[0].v) == {2, 4}


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_a_real_session(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=6)
    tokens = random_tokens(model, 20)
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(tokens)
        before = session.logits().copy()
        found = measure_prices(session, contexts=(40, 200))
        assert len(session) == 0
        session.read(tokens)
        assert np.array_equal(session.logits(), before)  # no mask is left
    assert found.maskable
    assert [p.context for p in found.at] == [40, 200]
    assert all(p.t1 > 0 and set(p.v) == {2, 4, 8, 16} for p in found.at)
    assert Prices.from_json(found.to_json()) == found
