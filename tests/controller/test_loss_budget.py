"""What drafts may lose: the budget, and shadows of drafts that were not verified."""

from __future__ import annotations

import pytest

from edge_conflayers.controller.loss_budget import BudgetSettings, LossBudget, without_hold_ups
from edge_conflayers.controller.shadow_draft import ShadowDraft
from edge_conflayers.engine.draft import ROOT, Draft

T1 = 0.1


def budget(
    of_elapsed: float = 0.01, first_steps: float = 1.0, of_savings: float = 0.5
) -> LossBudget:
    return LossBudget(BudgetSettings(of_elapsed, first_steps, of_savings))


def test_what_may_be_lost_is_lost_once() -> None:
    a = budget()
    assert a.left(T1) == pytest.approx(T1)
    a.add_draft(1, 2 * T1, T1)  # a draft of which nothing was accepted
    assert a.left(T1) == pytest.approx(0.01 * 2 * T1)
    for _ in range(50):
        a.add_plain(T1, 0.0)
    assert a.left(T1) == pytest.approx(0.01 * 52 * T1)


def test_rounds_without_drafts_count_alike_at_once_and_one_by_one() -> None:
    at_once, one_by_one = budget(), budget()
    for a in (at_once, one_by_one):
        for _ in range(10):
            a.add_draft(3, 1.5 * T1, T1)
    at_once.add_plain(8 * T1, 0.01 * T1, 8)
    for _ in range(8):
        one_by_one.add_plain(T1, 0.01 * T1 / 8)
    assert at_once.elapsed == pytest.approx(one_by_one.elapsed)
    assert at_once.left(T1) == pytest.approx(one_by_one.left(T1))
    assert at_once.tokens_per_second(T1) == pytest.approx(
        one_by_one.tokens_per_second(T1), rel=0.02
    )


def test_part_of_what_was_won_may_be_lost() -> None:
    a = budget(of_elapsed=0.0, first_steps=0.0)
    a.add_draft(5, T1, T1)
    for _ in range(40):
        a.add_evidence(0.0, T1)  # so that only the savings count
    assert a.won == pytest.approx(4 * T1)
    assert a.left(T1) == pytest.approx(2 * T1)
    a.spend(2 * T1)
    assert a.left(T1) == pytest.approx(T1)


def test_evidence_counts_for_a_while() -> None:
    a = budget(of_elapsed=0.0, first_steps=0.0)
    a.add_draft(1, 5 * T1, T1)
    assert a.left(T1) < 0
    for _ in range(6):
        a.add_evidence(2 * T1, T1)
    assert T1 < a.left(T1) <= 4 * T1
    for _ in range(100):
        a.add_evidence(20 * T1, T1)
    assert a.left(T1) == pytest.approx(3.5 * T1)
    for _ in range(10):
        a.add_evidence(-T1, T1)
    assert a.left(T1) < 0


def test_time_is_worth_what_it_brought_lately() -> None:
    a = budget()
    assert a.tokens_per_second(T1) == pytest.approx(1 / T1)
    for _ in range(200):
        a.add_draft(3, 1.5 * T1, T1)
    assert a.tokens_per_second(T1) == pytest.approx(2 / T1)
    for _ in range(200):
        a.add_draft(1, 2 * T1, T1)
    assert a.tokens_per_second(T1) == pytest.approx(1 / T1)  # plain decoding's at least


def test_a_shadow_goes_on_with_the_text() -> None:
    tree = Draft((7, 8, 9, 8), (0.5,) * 4, (ROOT, 0, 1, ROOT))
    shadow = ShadowDraft(tree, 1.5 * T1)
    shadow.follow(7)
    shadow.follow(8)
    assert not shadow.is_decided(T1)
    assert shadow.tried == [ROOT, 0]  # what follows the last one is not known yet
    shadow.follow(5)
    assert shadow.is_decided(T1) and shadow.path == [0, 1] and shadow.tried == [ROOT, 0, 1]
    assert shadow.won(T1) == pytest.approx(1.5 * T1)
    wrong = ShadowDraft(tree, 1.5 * T1)
    wrong.follow(6)
    assert wrong.is_decided(T1) and wrong.won(T1) == pytest.approx(-0.5 * T1)


def test_a_shadow_tells_before_its_end_that_it_is_right() -> None:
    shadow = ShadowDraft(Draft(tuple(range(20)), (0.9,) * 20), 2.5 * T1)
    followed = 0
    while not shadow.is_decided(T1):
        shadow.follow(followed)
        followed += 1
    assert followed == 4 and shadow.won(T1) == pytest.approx(2.5 * T1)
    assert shadow.tried == [ROOT, 0, 1, 2]


def test_one_draft_risks_what_was_won_and_a_share_of_the_rest() -> None:
    a = budget(0.0, 2.0, 0.8)
    assert a.for_one_draft(T1, 0.25) == pytest.approx(0.5 * T1)
    a.add_draft(2, 1.8 * T1, T1)  # little is won: no more than the share
    assert a.for_one_draft(T1, 0.25) == pytest.approx(0.25 * (2 + 0.16) * T1)
    a.add_draft(6, 2 * T1, T1)
    assert a.for_one_draft(T1, 0.25) == pytest.approx(0.8 * 4.2 * T1)
    a.add_draft(0, 20 * T1, T1)
    assert a.for_one_draft(T1, 0.25) < 0


def test_what_holds_up_the_machine_is_no_loss() -> None:
    assert without_hold_ups(1.2, 1.0) == 1.2
    assert without_hold_ups(30.0, 1.0) == 1.5
