"""What is measured of steps, on synthetic timings and on a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from steps import Tiny, random_tokens

from edge_conflayers.costs.measure import QUICK_BUDGET, measure_costs
from edge_conflayers.costs.model import StepCosts
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput

N_LAYER = 12


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
    found = measure_costs(
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
    found = measure_costs(cast(Session, session), quick=False, clock=session.clock)
    session.slow = [1.0]
    assert found.t1(240) == pytest.approx(session.seconds(1, 240))
    assert found.v(8, 1008) == pytest.approx(session.seconds(8, 1008) / session.seconds(1, 1008))


def test_a_model_that_no_mask_serves() -> None:
    session = Synthetic(maskable=False)
    found = measure_costs(cast(Session, session), clock=session.clock)
    assert not found.maskable
    assert found.c(LayerMask.layers({1, 2}), 500) == 1
    assert found.v(8, 240) > 1


@pytest.mark.parametrize(
    ("n_ctx", "contexts"), [(32, [16]), (300, [284]), (320, [240, 304]), (900, [240, 884])]
)
def test_small_sessions(n_ctx: int, contexts: list[int]) -> None:
    session = Synthetic(n_ctx)
    found = measure_costs(cast(Session, session), clock=session.clock)
    assert [p.context for p in found.at] == contexts


def test_sessions_that_are_too_small() -> None:
    for session in (Synthetic(15), Synthetic(max_outputs=1)):
        with pytest.raises(BadInput, match="too small"):
            measure_costs(cast(Session, session), clock=session.clock)
    few = measure_costs(cast(Session, Synthetic(max_outputs=4)))
    assert set(few.at[0].v) == {2, 4}


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_a_real_session(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=6)
    tokens = random_tokens(model, 20)
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(tokens)
        before = session.logits().copy()
        found = measure_costs(session, contexts=(40, 200))
        assert len(session) == 0
        session.read(tokens)
        assert np.array_equal(session.logits(), before)  # no mask is left
    assert found.maskable
    assert [p.context for p in found.at] == [40, 200]
    assert all(p.t1 > 0 and set(p.v) == {2, 4, 8, 16} for p in found.at)
    assert StepCosts.from_json(found.to_json()) == found
