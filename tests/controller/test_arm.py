"""The expected gain of an arm's drafts, by hand."""

from __future__ import annotations

import pytest

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import NO_PLAN, Plan, Prior
from edge_conflayers.controller.expected_gain import ExpectedGain
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft

T1 = 0.04
RATE = 1 / T1
TIMES = StepTimes(T1, {2: 1.1, 4: 1.2, 8: 1.4})
ALL = 1e9


def estimate(accepted: float = 3.0, drafted: float = 4.0, cost: float = 0.25) -> ExpectedGain:
    found = ExpectedGain("small", AcceptanceRates(), 12)
    found.restart(Prior(accepted, drafted, seconds=cost * T1))
    return found


def plan(found: ExpectedGain, limit: int, budget: float = ALL) -> Plan:
    return found.plan(TIMES, 1, limit, tokens_per_second=RATE, budget=budget)


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
    best = plan(estimate(), 8)
    assert best.limit == 8
    assert best.gain == pytest.approx(gain(0.25, 8))


def test_a_draft_is_as_long_as_pays() -> None:
    """What comes after two tokens is never accepted."""
    found = estimate()
    for _ in range(24):
        found.observe(a_round(6, 2, 6 * 0.25 * T1))
    best = plan(found, 12)
    assert best.limit == 2
    assert best.gain == pytest.approx(2 - 2 * 0.25 - (TIMES.v(3) - 1), abs=0.2)


def test_a_draft_is_as_long_as_may_be_lost() -> None:
    """Of three imagined drafts six in ten are for nothing."""
    verifying = TIMES.v(5) - 1
    for tokens in range(5):
        budget = 0.6 * (verifying + 0.25 * tokens + 0.01) * T1
        best = plan(estimate(), 8, budget)
        assert best.limit == tokens
        if tokens == 0:
            assert best == NO_PLAN


def test_it_learns_from_its_own_drafts() -> None:
    found = estimate()
    before = plan(found, 8).gain
    for _ in range(6):
        found.observe(a_round(4, 0, 4 * 0.25 * T1, source="lookup"))
        found.observe(a_round(0, 0, 0.0))
    assert plan(found, 8).gain == before
    for _ in range(24):
        found.observe(a_round(4, 0, 4 * 0.25 * T1))
    assert plan(found, 8).gain < 0
    found.begin_text()
    assert plan(found, 8).gain == pytest.approx(before)


def test_what_a_drafted_token_costs_outlives_a_text() -> None:
    found = estimate()
    found.observe(a_round(4, 4, 4 * 0.5 * T1))
    found.begin_text()
    best = max(gain(0.5, n) for n in (1, 2, 3, 4, 6, 8))
    assert plan(found, 8).gain == pytest.approx(best)


def test_after_long_disuse_it_is_tried_again() -> None:
    found = estimate()
    for _ in range(9):
        found.observe(a_round(4, 0, 4 * 0.25 * T1))
    gains = [plan(found, 8).gain for _ in range(600)]
    assert gains == sorted(gains) and gains[0] < 0 < gains[-1]


def test_how_likely_a_token_must_be() -> None:
    found = estimate()
    verifying = (TIMES.v(9) - TIMES.v(2)) / 7
    assert found.min_to_go_on(TIMES, RATE, 1) == pytest.approx(0.25 + verifying)
    assert found.min_to_verify(TIMES, RATE, 1) == pytest.approx(verifying)
    # A step's cost is that of long drafts, of which catching up with the text is a small part.
    for n in (1, 2, 4, 8):
        found.observe(a_round(n, n, (0.3 + 0.2 * n) * T1))
    assert 0.2 < found.min_to_go_on(TIMES, RATE, 1) - verifying < 0.3
    assert found.min_to_go_on(TIMES, 1e6 * RATE, 1) == 1.0


def test_a_draft_that_caught_up_with_a_text_is_not_the_rule() -> None:
    found = estimate(cost=0.3)
    found.observe(a_round(4, 4, 4 * 0.3 * T1))
    before = plan(found, 8).gain
    found.observe(a_round(4, 4, 4 * 0.9 * T1))
    assert plan(found, 8).gain >= before
