"""Times kinds of steps in turns, so that a slow minute hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput

LIVE_GRAPHS = 8
"""Compute graphs that the library keeps alive; a step of another kind builds its own anew."""

# After a step over 16 tokens, one-token steps are up to a fifth slower for about five steps
# (measured 2026-11-23, Xeon, SmolLM2).
_SETTLING_STEPS = 5

Kind = TypeVar("Kind", bound=Hashable)


def median_seconds(
    runs: Mapping[Kind, Callable[[], float]],
    *,
    repeats: int,
    order: Sequence[Kind] | None = None,
    before: Callable[[Kind], object] = lambda kind: None,
    enough: Callable[[Mapping[Kind, Sequence[float]]], bool] = lambda seconds: False,
) -> dict[Kind, float]:
    """The median time of each kind of run, in seconds.

    Each is run once untimed, which builds its graph. Then every repeat runs all of them in turn.

    Args:
        runs: make one run of a kind and return its time in seconds.
        repeats: at most so many.
        order: the kinds of one repeat, if some are to be run more than once in it.
        before: called before each timed run.
        enough: asked after each repeat with the times so far; ends the measurement.
    """
    for run in runs.values():
        run()
    seconds: dict[Kind, list[float]] = {kind: [] for kind in runs}
    for _ in range(repeats):
        for kind in order or list(runs):
            before(kind)
            seconds[kind].append(runs[kind]())
        if enough(seconds):
            break
    return {kind: median(times) for kind, times in seconds.items()}


@dataclass(frozen=True)
class Step:
    """A kind of step: so many tokens, with logits for all of them, under a mask."""

    tokens: int = 1
    mask: LayerMask = NO_MASK


PLAIN = Step()
"""A full one-token step; its time is T1."""


class StepTimer:
    """Times steps that follow what a session holds; each is rolled back after its run.

    Args:
        session: where the steps run.
        text: tokens from the session's first on, as long as the session's text and the largest
            step together.
        clock: in seconds.
    """

    def __init__(
        self,
        session: TextSession,
        text: Sequence[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._session = session
        self._text = text
        self._clock = clock

    def seconds(self, step: Step) -> float:
        """The time of one step.

        Raises:
            BadInput: the model's architecture cannot be served by the step's mask.
            EdgeConflayersError: the model cannot be rolled back.
        """
        session = self._session
        begin = len(session)
        session.set_mask(step.mask)
        started = self._clock()
        session.step(self._text[begin : begin + step.tokens], outputs="all")
        session.logits(-1)  # waits for a GPU
        ended = self._clock()
        session.rollback(begin)
        return ended - started

    def serves(self, mask: LayerMask) -> bool:
        """Whether the model can run under a mask."""
        try:
            self.seconds(Step(mask=mask))
        except BadInput:
            return False
        return True

    def median_seconds(
        self,
        steps: Sequence[Step],
        *,
        repeats: int,
        budget: float | None = None,
        on_repeat: Callable[[], None] = lambda: None,
    ) -> dict[Step, float]:
        """The median time of each kind of step.

        As in a text, a step is timed right after full one-token steps: one before a longer or
        masked step, five before a full one-token step. If more kinds are timed than graphs stay
        alive, each kind's graph is built again before.

        Args:
            steps: ``PLAIN`` among them; a step that stands several times is timed as often in each
                repeat.
            repeats: at most so many.
            budget: most one-token steps' time to take, as far as whole repeats allow; at least one
                repeat is made.
            on_repeat: called after each repeat.
        """
        kinds = dict.fromkeys(steps)
        rebuild = len(kinds) > LIVE_GRAPHS
        begun = self._clock()
        repeat_begun: float | None = None

        def settle(step: Step) -> None:
            nonlocal repeat_begun
            if repeat_begun is None:
                repeat_begun = self._clock()
            if rebuild and step != PLAIN:
                self.seconds(step)
            for _ in range(_SETTLING_STEPS if step == PLAIN else 1):
                self.seconds(PLAIN)

        def enough(seconds: Mapping[Step, Sequence[float]]) -> bool:
            nonlocal repeat_begun
            on_repeat()
            now = self._clock()
            assert repeat_begun is not None
            after_another = (now - begun) + (now - repeat_begun)
            repeat_begun = None
            return budget is not None and after_another > budget * median(seconds[PLAIN])

        return median_seconds(
            {step: lambda step=step: self.seconds(step) for step in kinds},  # type: ignore[misc]
            repeats=repeats,
            order=steps,
            before=settle,
            enough=enough,
        )
