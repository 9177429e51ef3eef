"""What a drafter is expected to bring, by hand."""

from __future__ import annotations

import pytest

from edge_conflayers.controller.acceptance import AcceptanceChances
from edge_conflayers.controller.arm import NOTHING, Expectations, Prior
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft

T1 = 0.04
RATE = 1 / T1
TIMES = StepTimes(T1, {2: 1.1, 4: 1.2, 8: 1.4})
ALL = 1e9


def expectations(accepted: float = 3.0, drafted: float = 4.0, cost: float = 0.25) -> Expectations:
    found = Expectations("small", AcceptanceChances(), 12)
    found.restart(Prior(accepted, drafted, seconds=cost * T1))
    return found


def a_round(drafted: int, accepted: int, seconds: float, source: str = "small") -> Round:
    draft = Draft((5,) * drafted, (0.9,) * drafted, sources=(source,) * drafted)
    return Round((4,), draft, tuple(range(accepted)), 6, 10, seconds, T1)


def gain(cost: float, n: int) -> float:
    """Of at most n tokens that go on with 3/4 and of which, in the end, 3 of 4 are accepted."""
    on, right = 3 / 4, 3 / (1 + 3 / 4 * 3)
    drafted = (1 - on**n) / (1 - on)
    accepted = right * (1 - (on * right) ** n) / (1 - on * right)
    return accepted - cost * drafted - (TIMES.v(1 + round(drafted)) - 1)


def test_the_gain_of_a_draft() -> None:
    plan = expectations().plan(RATE, TIMES, 1, 8, ALL)
    assert plan.limit == 8
    assert plan.gain == pytest.approx(gain(0.25, 8))


def test_a_draft_is_as_long_as_pays() -> None:
    """What comes after two tokens is never accepted."""
    found = expectations()
    for _ in range(24):
        found.observe(a_round(6, 2, 6 * 0.25 * T1))
    plan = found.plan(RATE, TIMES, 1, 12, ALL)
    assert plan.limit == 2
    assert plan.gain == pytest.approx(2 - 2 * 0.25 - (TIMES.v(3) - 1), abs=0.2)


def test_a_draft_is_as_long_as_may_be_lost() -> None:
    """Of three imagined drafts six in ten are for nothing."""
    verifying = TIMES.v(5) - 1
    for tokens in range(5):
        spare = 0.6 * (verifying + 0.25 * tokens + 0.01) * T1
        plan = expectations().plan(RATE, TIMES, 1, 8, spare)
        assert plan.limit == tokens
        if tokens == 0:
            assert plan == NOTHING


def test_it_learns_from_its_own_drafts() -> None:
    found = expectations()
    before = found.plan(RATE, TIMES, 1, 8, ALL).gain
    for _ in range(6):
        found.observe(a_round(4, 0, 4 * 0.25 * T1, source="lookup"))
        found.observe(a_round(0, 0, 0.0))
    assert found.plan(RATE, TIMES, 1, 8, ALL).gain == before
    for _ in range(24):
        found.observe(a_round(4, 0, 4 * 0.25 * T1))
    assert found.plan(RATE, TIMES, 1, 8, ALL).gain < 0
    found.begin_text()
    assert found.plan(RATE, TIMES, 1, 8, ALL).gain == pytest.approx(before)


def test_what_a_drafted_token_costs_outlives_a_text() -> None:
    found = expectations()
    found.observe(a_round(4, 4, 4 * 0.5 * T1))
    found.begin_text()
    best = max(gain(0.5, n) for n in (1, 2, 3, 4, 6, 8))
    assert found.plan(RATE, TIMES, 1, 8, ALL).gain == pytest.approx(best)


def test_after_long_disuse_it_is_tried_again() -> None:
    found = expectations()
    for _ in range(9):
        found.observe(a_round(4, 0, 4 * 0.25 * T1))
    gains = [found.plan(RATE, TIMES, 1, 8, ALL).gain for _ in range(600)]
    assert gains == sorted(gains) and gains[0] < 0 < gains[-1]


def test_how_likely_a_token_must_be() -> None:
    found = expectations()
    verifying = (TIMES.v(9) - TIMES.v(2)) / 7
    assert found.least_to_go_on(RATE, TIMES, 1) == pytest.approx(0.25 + verifying)
    assert found.least_to_verify(RATE, TIMES, 1) == pytest.approx(verifying)
    # A step's cost is that of long drafts, of which catching up with the text is a small part.
    for n in (1, 2, 4, 8):
        found.observe(a_round(n, n, (0.3 + 0.2 * n) * T1))
    assert 0.2 < found.least_to_go_on(RATE, TIMES, 1) - verifying < 0.3
    assert found.least_to_go_on(1e6 * RATE, TIMES, 1) == 1.0


def test_a_draft_that_caught_up_with_a_text_is_not_the_rule() -> None:
    found = expectations(cost=0.3)
    found.observe(a_round(4, 4, 4 * 0.3 * T1))
    before = found.plan(RATE, TIMES, 1, 8, ALL).gain
    found.observe(a_round(4, 4, 4 * 0.9 * T1))
    assert found.plan(RATE, TIMES, 1, 8, ALL).gain >= before
