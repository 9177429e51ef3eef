"""Running estimates of step times and of chances of acceptance."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.draft_lengths import RECENT_DRAFTS, DraftLengths
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.errors import BadInput

V = {2: 1.1, 4: 1.2, 8: 1.6}


def test_times_start_from_what_was_measured() -> None:
    times = StepTimes(0.04, V)
    assert times.t1 == 0.04
    assert [times.v(n) for n in (1, 2, 4, 8)] == [1.0, 1.1, 1.2, 1.6]
    assert times.v(3) == pytest.approx(1.15) and times.v(6) == pytest.approx(1.4)
    assert times.v(16) == pytest.approx(2.4)  # goes on as between the last two
    assert times.step(4) == pytest.approx(0.048)


def test_t1_follows_the_context_and_ignores_outliers() -> None:
    times = StepTimes(0.04, V)
    for _ in range(20):
        times.observe(1, 0.05)
    times.observe(1, 3.0)
    assert times.t1 == 0.05


def test_one_token_steps_can_be_heard_of_together() -> None:
    together, one_by_one = (StepTimes(0.1, {2: 1.1}) for _ in range(2))
    seconds = [0.1 + 0.001 * (i * 7 % 20) for i in range(20)]
    together.observe_plain(seconds)
    for each in seconds:
        one_by_one.observe(1, each)
    assert together.t1 == one_by_one.t1 != 0.1
    assert not together.plain_due


def test_v_follows_what_steps_take() -> None:
    times = StepTimes(0.04, V)
    times.observe(1, 0.04)
    times.observe(4, 0.3)
    assert times.v(4) == 1.2  # one slow step proves nothing
    for _ in range(9):
        times.observe(4, 0.06)
    assert times.v(4) == pytest.approx(1.5)


def test_v_of_untried_sizes_follows_that_of_others() -> None:
    """Memory that has become faster makes every further token dearer, and the other way round."""
    times = StepTimes(0.04, V)
    times.observe(1, 0.04)
    for _ in range(9):
        times.observe(4, 0.04 * (1 + 2 * (V[4] - 1)))
    for n in (2, 8):
        assert times.v(n) == pytest.approx(1 + 2 * (V[n] - 1))
    for _ in range(9):
        times.observe(4, 0.02)
    assert times.v(8) == pytest.approx(1 + 0.25 * (V[8] - 1))
    times = StepTimes(0.04, {**V, 2: 1.05})
    times.observe(1, 0.04)
    for _ in range(9):
        times.observe(2, 0.06)  # so few tokens do not tell
    assert times.v(8) == V[8]


def test_one_token_steps_are_asked_for() -> None:
    """A T1 that was measured in bad times does not last."""
    times = StepTimes(0.4, V)
    assert times.plain_due
    for _ in range(2):
        times.observe(1, 0.04)
    assert not times.plain_due and times.t1 == 0.04
    for _ in range(32):
        assert not times.plain_due
        times.observe(4, 0.05)
    assert times.plain_due
    times.observe(1, 0.04)
    assert not times.plain_due


@pytest.mark.parametrize("t1, v", [(0.0, V), (-1.0, V), (float("nan"), V), (1.0, {}), (1, {2: 0})])
def test_impossible_times(t1: float, v: dict[int, float]) -> None:
    with pytest.raises(BadInput, match="measure"):
        StepTimes(t1, v)


@given(st.floats(0, 1), st.floats(0, 1))
def test_chances_begin_as_stated(p: float, q: float) -> None:
    calibration = AcceptanceRates()
    assert calibration.rate("anyone", p) == pytest.approx(p)
    calibration.observe("another", q, accepted=True)
    assert calibration.rate("anyone", p) == pytest.approx(p)


def test_chances_become_what_happens() -> None:
    calibration = AcceptanceRates()
    source = random.Random(0)
    for _ in range(2000):
        calibration.observe("liar", 0.95, source.random() < 0.2)
        calibration.observe("modest", 0.3, source.random() < 0.9)
    assert calibration.rate("liar", 0.95) == pytest.approx(0.2, abs=0.1)
    assert calibration.rate("modest", 0.3) == pytest.approx(0.9, abs=0.1)
    assert calibration.rate("liar", 0.3) == pytest.approx(0.3)
    assert calibration.table("liar")[7] == pytest.approx(0.2, abs=0.1)


def test_chances_in_other_texts_are_a_beginning() -> None:
    elsewhere = AcceptanceRates()
    for i in range(400):
        elsewhere.observe("liar", 0.95, accepted=i % 4 == 0)
    calibration = AcceptanceRates()
    lines = calibration.lines("liar")
    calibration.expect("liar", elsewhere.counts("liar"))
    assert calibration.rate("liar", 0.95) == pytest.approx(0.25, abs=0.12)
    assert lines[14] == calibration.lines("liar")[14] > 0  # whoever reads them hears of it
    assert calibration.rate("liar", 0.3) == pytest.approx(0.3)
    for _ in range(60):
        calibration.observe("liar", 0.95, accepted=True)
    assert calibration.rate("liar", 0.95) > 0.75  # a text's own count for more
    calibration.expect("liar", elsewhere.counts("liar"))
    assert calibration.rate("liar", 0.95) > 0.75  # it is known by now
    calibration.expect("another", ())
    assert calibration.rate("another", 0.4) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.floats(0, 1))
def test_chances_of_a_trusted_source_are_what_it_says_but_for_a_factor(
    seen: list[tuple[float, bool]], p: float
) -> None:
    chances = AcceptanceRates()
    lines = chances.lines("lookup")
    chances.self_calibrate("lookup")
    assert chances.rate("lookup", p) == pytest.approx(p)
    for probability, accepted in seen:
        chances.observe("lookup", probability, accepted)
    factor = chances.rate("lookup", 0.5) / 0.5
    assert 0 < factor <= 1
    assert chances.rate("lookup", p) == pytest.approx(factor * p)
    assert (
        list(lines)
        == list(chances.lines("lookup"))
        == list(AcceptanceRates.from_state(chances.state()).lines("lookup"))
    )


def test_a_trusted_source_that_promises_too_much() -> None:
    chances = AcceptanceRates()
    chances.self_calibrate("lookup")
    for i in range(400):
        chances.observe("lookup", 0.8, i % 5 < 2)
    assert chances.rate("lookup", 0.8) == pytest.approx(0.4, abs=0.03)
    assert chances.rate("lookup", 0.2) == pytest.approx(0.1, abs=0.01)
    for _ in range(1500):
        chances.observe("lookup", 0.8, True)
    assert chances.rate("lookup", 0.8) == pytest.approx(0.8)


def test_what_was_counted_before_a_source_was_trusted_is_forgotten() -> None:
    """Profiles of earlier versions have counts of lookups."""
    chances = AcceptanceRates()
    for _ in range(50):
        chances.observe("lookup", 0.9, False)
    resumed = AcceptanceRates.from_state(chances.state())
    resumed.self_calibrate("lookup")
    resumed.expect("lookup", chances.counts("lookup"))
    assert resumed.rate("lookup", 0.9) == pytest.approx(0.9)
    assert resumed.state()["counts"] == {}


def test_old_counts_fade() -> None:
    calibration = AcceptanceRates()
    for _ in range(3000):
        calibration.observe("lookup", 0.8, accepted=False)
    for _ in range(300):
        calibration.observe("lookup", 0.8, accepted=True)
    assert calibration.rate("lookup", 0.8) > 0.6


def test_calibration_state() -> None:
    calibration = AcceptanceRates()
    for i in range(50):
        calibration.observe("lookup", i / 50, i % 3 == 0)
    again = AcceptanceRates.from_state(calibration.state())
    assert again.state() == calibration.state()
    assert again.table("lookup") == calibration.table("lookup")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"counts": 3},
        {"counts": {"lookup": [[1, 2]]}},
        {"counts": {"lookup": [[1, 2]] * 8}},
        {"counts": {"lookup": [["x", 0]] * 8}},
        {"counts": {}, "trusted": 3},
        {"counts": {}, "trusted": {"lookup": [1]}},
        {"counts": {}, "trusted": {"lookup": [-1, 0]}},
        {"counts": {}, "trusted": {"lookup": [1, float("nan")]}},
        {"counts": {"lookup": [[float("inf"), 0]] * 8}},
    ],
)
def test_a_damaged_calibration_state(state: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="--fresh"):
        AcceptanceRates.from_state(state)


def test_reach_starts_from_what_is_expected() -> None:
    drafted, accepted = DraftLengths(4.0, 2.5).expected(500)
    assert drafted == pytest.approx(4.0) and accepted == pytest.approx(2.5)
    assert DraftLengths(4.0, 2.5).expected(1) == pytest.approx((1.0, 2.5 / (1 + 0.75 * 2.5)))
    assert DraftLengths(0.0, 0.0).expected(3) == (1.0, 0.0)


def test_reach_by_position() -> None:
    reach = DraftLengths(3.0, 2.0)
    for _ in range(RECENT_DRAFTS):
        reach.observe(8, 3, 1)
    drafted, accepted = zip(*(reach.expected(n) for n in (1, 2, 3, 4, 8)), strict=True)
    assert drafted == pytest.approx((1, 2, 3, 3, 3), abs=0.35)
    assert accepted == pytest.approx((1, 1, 1, 1, 1), abs=0.15)
    assert reach.wasted < 0.1


def test_drafts_that_were_cut_short_say_nothing_of_later_positions() -> None:
    cut, ended = DraftLengths(3.0, 2.0), DraftLengths(3.0, 2.0)
    for _ in range(RECENT_DRAFTS):
        cut.observe(2, 2, 2)
        ended.observe(8, 2, 2)
    assert cut.expected(2)[1] == pytest.approx(2.0, abs=0.2)
    assert cut.expected(6)[1] > 4.5
    assert ended.expected(6) == pytest.approx((2.0, 2.0), abs=0.25)


def test_reach_forgets_the_oldest_draft() -> None:
    reach, other = DraftLengths(3.0, 2.0), DraftLengths(3.0, 2.0)
    reach.observe(8, 4, 0)
    for each in (reach, other):
        each.observe(8, 3, 3)
    assert reach.expected(4) != other.expected(4)
    reach.forget_oldest()
    assert reach.expected(4) == other.expected(4)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 11), st.integers(0, 12)), max_size=30),
    st.floats(0, 8),
    st.floats(0, 8),
)
def test_longer_drafts_bring_no_less(
    drafts: list[tuple[int, int, int]], drafted: float, accepted: float
) -> None:
    reach = DraftLengths(drafted, accepted)
    for limit, left, of_them in drafts:
        n = max(1, limit - left)
        reach.observe(limit, n, min(n, of_them))
    assert 0 < reach.wasted < 1
    brought = [reach.expected(n) for n in range(1, 13)]
    assert brought[0][0] == 1.0
    for (d0, a0), (d1, a1) in pairwise(brought):
        assert 0 <= d1 - d0 <= 1 and 0 <= a1 - a0 <= 1


def test_what_other_texts_taught_of_a_trusted_source_counts_for_little() -> None:
    chances = AcceptanceRates()
    chances.self_calibrate("lookup")
    for _ in range(100):
        chances.observe("lookup", 0.8, False)
    known = chances.rate("lookup", 0.8)
    chances.begin_text()
    assert known < chances.rate("lookup", 0.8) == pytest.approx(0.8 * 2 / 14)
    for _ in range(10):
        chances.observe("lookup", 0.8, True)
    after_ten = chances.rate("lookup", 0.8)
    assert after_ten == pytest.approx(0.8 * 12 / 22)
    chances.begin_text()
    assert chances.rate("lookup", 0.8) == pytest.approx(0.8 * (10 * 12 / 20 + 2) / 14)
