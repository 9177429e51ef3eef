"""How deep the head is asked, and whether at all."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.drafters.asking import Asking, best_size, depth_of
from edge_conflayers.engine.draft import ROOT, Draft

NAME = "head"
V = {2: 1.05, 4: 1.1, 8: 1.28}
DEEP = Draft((10, 20, 11), (0.8, 0.7, 0.15), (ROOT, 0, ROOT))


def begun(v: dict[int, float] | None = None, seconds: float = 0.02) -> Asking:
    asking = Asking(NAME)
    asking.begin_text(StepTimes(1.0, v or V), AcceptanceRates())
    asking.asked(seconds, 1)
    return asking


def test_the_dearer_the_fewer_are_asked_about() -> None:
    cheap = begun().options()
    verifying, asking = begun({8: 1.8}).options(), begun(seconds=0.2).options()
    assert 0 < cheap.min_path < cheap.min_join < cheap.min_expand < 1
    assert verifying.min_path > cheap.min_path and verifying.min_expand > cheap.min_expand
    assert asking.min_path == cheap.min_path and asking.min_expand > cheap.min_expand
    deep = Asking(NAME)  # as much for a level of three
    deep.begin_text(StepTimes(1.0, V), AcceptanceRates())
    deep.asked(0.06, 3)
    assert deep.options().min_expand == pytest.approx(cheap.min_expand)


@pytest.mark.parametrize("right", [True, False])
def test_going_on_is_tried_the_more_the_better_it_went(right: bool) -> None:
    asking = begun()
    before = asking.options().min_expand
    for _ in range(100):
        asking.learn(DEEP, (10, 20 if right else 21, 30))
    after = asking.options().min_expand
    assert after < 0.7 * before if right else after > 1.5 * before
    assert after < 0.9  # after a sure token it is tried all the same


def test_what_was_not_seen_changes_nothing() -> None:
    """Tokens that nothing followed yet say nothing about what would."""
    asking = begun()
    before = asking.options().min_expand
    for drawn in ((10,), (12, 20), (11, 20)):
        asking.learn(DEEP, drawn)
        assert asking.options().min_expand == before


def test_a_head_that_is_always_wrong_is_seldom_asked() -> None:
    asking = begun()
    assert all(asking.due for _ in range(20))
    for _ in range(50):
        asking.learn(DEEP, (5,))
    assert sum(asking.due for _ in range(60)) == 10
    for _ in range(100):
        asking.learn(DEEP, (10, 20, 5))
    assert all(asking.due for _ in range(20))


def test_answers_without_tokens_cost_their_asking() -> None:
    asking = begun(seconds=0.1)
    for _ in range(200):
        asking.learn(Draft(), (5,))
    assert not asking.due


def test_depths() -> None:
    assert depth_of(Draft()) == 1
    assert depth_of(DEEP) == 2
    assert depth_of(Draft((1, 2, 3), (0.5,) * 3, (ROOT, 0, 1))) == 3


@given(
    st.lists(st.floats(0, 0.5), max_size=8).map(lambda chances: sorted(chances, reverse=True)),
    st.floats(1.0, 1.5),
)
def test_the_best_size_is_that_of_the_most_gain(chances: list[float], v8: float) -> None:
    times = StepTimes(1.0, {8: v8})
    totals = list(accumulate(chances, initial=0.0))
    gains = [total - (times.v(1 + n) - 1) for n, total in enumerate(totals)]
    assert gains[best_size(chances, times)] == max(gains)
