"""Step times, as they change with the context and the machine."""

from __future__ import annotations

import pytest

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
        times.observe(2, 0.06)
    assert times.v(2) == pytest.approx(1.5)
    assert times.v(8) == V[8]  # so few tokens do not tell


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


def test_how_the_machine_is_now_counts_on_in_the_next_text_and_fades() -> None:
    """Memory has become slower: V(4) - 1 is twice what was measured."""
    times = StepTimes(0.04, V)
    times.observe(1, 0.04)
    for _ in range(9):
        times.observe(4, 0.04 * (1 + 2 * (V[4] - 1)))
    found = []
    for _ in range(3):
        times.begin_text(0.05, V)
        assert times.t1 == 0.05 and times.plain_due
        found.append(times.v(8))
    assert found[0] == pytest.approx(1 + 2 * (V[8] - 1))
    assert found[-1] == pytest.approx(V[8])
