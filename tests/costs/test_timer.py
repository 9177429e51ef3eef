"""Times of steps, in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from edge_conflayers.costs.timer import LIVE_GRAPHS, PLAIN, Step, StepTimer, median_seconds
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput

WITHOUT_ONE = Step(mask=LayerMask.layers({1}))


def test_kinds_are_timed_in_turns_after_an_untimed_run_of_each() -> None:
    ran: list[str] = []
    times = {"a": iter([100.0, 1, 9, 2]), "b": iter([100.0, 5, 4, 30])}

    def run(kind: str) -> Callable[[], float]:
        def timed() -> float:
            ran.append(kind)
            return next(times[kind])

        return timed

    found = median_seconds({kind: run(kind) for kind in times}, repeats=3)
    assert ran == ["a", "b"] * 4
    assert found == {"a": 2, "b": 5}


def test_enough_ends_the_measurement() -> None:
    ran: list[int] = []
    median_seconds(
        {"a": lambda: float(len(ran))},
        repeats=50,
        before=lambda kind: ran.append(1),
        enough=lambda seconds: len(seconds["a"]) == 4,
    )
    assert len(ran) == 4


class Recorder:
    """Notes the steps of a session whose n-token step takes n seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.held = [7, 7]
        self.mask = NO_MASK
        self.steps: list[Step] = []

    def clock(self) -> float:
        return self.now

    def __len__(self) -> int:
        return len(self.held)

    def set_mask(self, mask: LayerMask) -> None:
        if 3 in mask.attention:
            raise BadInput("there is no such layer")
        self.mask = mask

    def step(self, tokens: list[int], *, outputs: str) -> None:
        assert outputs == "all" and tokens == [len(self.held) + i for i in range(len(tokens))]
        self.steps.append(Step(len(tokens), self.mask))
        self.held += tokens
        self.now += len(tokens)

    def logits(self, index: int) -> None:
        assert index == -1

    def rollback(self, length: int) -> None:
        del self.held[length:]


def timer(session: Recorder) -> StepTimer:
    return StepTimer(cast(Session, session), list(range(64)), session.clock)


def test_a_step_is_timed_right_after_plain_ones() -> None:
    session = Recorder()
    found = timer(session).median_seconds([PLAIN, Step(4), WITHOUT_ONE], repeats=2)
    assert found == {PLAIN: 1, Step(4): 4, WITHOUT_ONE: 1}
    assert len(session) == 2
    repeat = [*[PLAIN] * 6, PLAIN, Step(4), PLAIN, WITHOUT_ONE]
    assert session.steps == [PLAIN, Step(4), WITHOUT_ONE, *repeat, *repeat]


def test_more_kinds_than_graphs_build_their_graph_again() -> None:
    session = Recorder()
    sizes = [Step(n) for n in range(2, LIVE_GRAPHS + 2)]
    timer(session).median_seconds([PLAIN, *sizes], repeats=1)
    assert session.steps[-6:] == [Step(8), PLAIN, Step(8), Step(9), PLAIN, Step(9)]
    session.steps.clear()
    timer(session).median_seconds([PLAIN, *sizes[:-1]], repeats=1)
    assert session.steps[-4:] == [PLAIN, Step(7), PLAIN, Step(8)]


@pytest.mark.parametrize(("budget", "repeats"), [(0.0, 1), (60.0, 2), (None, 9)])
def test_a_budget_ends_before_a_repeat_that_would_exceed_it(
    budget: float | None, repeats: int
) -> None:
    session = Recorder()
    done: list[int] = []
    timer(session).median_seconds(
        [PLAIN, Step(10)], repeats=9, budget=budget, on_repeat=lambda: done.append(1)
    )
    assert len(done) == repeats  # 11 seconds once, then 17 a repeat
    assert budget is None or repeats == 1 or session.now <= budget


def test_masks_that_the_model_does_not_serve() -> None:
    assert timer(Recorder()).serves(LayerMask.layers({1}))
    assert not timer(Recorder()).serves(LayerMask.layers({1, 3}))
