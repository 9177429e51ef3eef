"""What the controller asks of a drafter that takes time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import TextSession


@dataclass(frozen=True)
class Plan:
    """A draft that an arm could make now.

    Attributes:
        gain: tokens that it is expected to add, less what its time is worth.
        limit: most tokens to draft.
    """

    gain: float
    limit: int


NO_PLAN = Plan(float("-inf"), 0)


@dataclass(frozen=True)
class Prior:
    """What is expected of drafts before there were any.

    Attributes:
        accepted, drafted: tokens a round.
        seconds: of one drafted token.
    """

    accepted: float
    drafted: float
    seconds: float


class Arm(Protocol):
    """A drafter that takes time, which the controller weighs against others."""

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """Called when a text begins, whose prompt the session holds."""
        ...

    def plan(
        self,
        times: StepTimes,
        n_pending: int,
        limit: int,
        *,
        tokens_per_second: float,
        budget: float,
    ) -> Plan:
        """Plans a draft.

        Args:
            n_pending: tokens that are verified before it.
            limit: most tokens.
            tokens_per_second: what a second must bring.
            budget: seconds that may be lost, weighted by how likely it is that nothing is accepted.
        """
        ...

    def draft(
        self,
        session: TextSession,
        pending: Sequence[int],
        limit: int,
        times: StepTimes,
        tokens_per_second: float,
    ) -> Draft:
        """Drafts at most ``limit`` tokens, as long as one more is worth its time."""
        ...

    def observe(self, round: Round) -> None:
        """Takes in a round, whoever drafted."""
        ...

    def report(self) -> dict[str, Any]:
        """What to tell the user about it: JSON-able."""
        ...
