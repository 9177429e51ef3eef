"""What drafts that take time are expected to bring, and for how long going on is worth it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edge_conflayers.controller.acceptance import AcceptanceChances
from edge_conflayers.controller.reach import RECENT_DRAFTS, Reach
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask, Session

_FORGET_AFTER = 64
_LENGTHS = (1, 2, 3, 4, 6, 8, 12)  # of drafts that are weighed


@dataclass(frozen=True)
class Plan:
    """One draft.

    Attributes:
        gain: tokens that it is expected to add, less what its time is worth.
        limit: most tokens to draft.
    """

    gain: float
    limit: int


NOTHING = Plan(float("-inf"), 0)


@dataclass(frozen=True)
class Prior:
    """What is known of drafts before there were any.

    Attributes:
        accepted, drafted: tokens a round.
        seconds: of a drafted token.
    """

    accepted: float
    drafted: float
    seconds: float


class Arm(Protocol):
    """A drafter that the controller weighs against others."""

    def plan(self, rate: float, times: StepTimes, n_pending: int, limit: int, spare: float) -> Plan:
        """Of a draft now, when a second is worth ``rate`` tokens and ``spare`` seconds may be
        lost on the chance that nothing is accepted."""
        ...

    def draft(
        self, session: Session, pending: Sequence[int], limit: int, rate: float, times: StepTimes
    ) -> Draft:
        """At most ``limit`` tokens, as long as one more is worth its time."""
        ...

    def observe(self, round: Round) -> None:
        """Hears what became of a round, whoever drafted."""
        ...

    def report(self) -> dict[str, Any]: ...


class Expectations:
    """Of one drafter, from its recent drafts.

    Args:
        name: its source.
        calibration: chances of acceptance by probability, kept by the controller.
        max_draft: most tokens in a draft.
    """

    def __init__(self, name: str, calibration: AcceptanceChances, max_draft: int) -> None:
        self.name = name
        self.calibration = calibration
        self._max_draft = max_draft
        self._lengths = [n for n in _LENGTHS if n < max_draft] + [max_draft]
        self._limit = max_draft  # of the last draft
        self._reach = Reach(0.0, 0.0)
        self._token_seconds: deque[float] = deque(maxlen=RECENT_DRAFTS)
        self._unused = 0

    def restart(self, prior: Prior) -> None:
        """Its drafts will be of another kind."""
        self._prior = prior
        self._reach = Reach(prior.drafted, prior.accepted)
        self._token_seconds.clear()

    def begin_text(self) -> None:
        """How well it drafts in another text is open; what a draft costs is not."""
        self._reach = Reach(self._prior.drafted, self._prior.accepted)

    def plan(self, rate: float, times: StepTimes, n_pending: int, limit: int, spare: float) -> Plan:
        """See ``Arm.plan``."""
        self._unused += 1
        if self._unused % _FORGET_AFTER == 0:
            self._reach.forget_oldest()
        if self._prior.drafted <= 0:
            return NOTHING
        best = NOTHING
        limit = min(limit, self._max_draft)
        wasted, token = self._reach.wasted, self._token_cost()
        without = times.step(n_pending)
        for n in self._lengths:
            if n > limit:
                break
            drafted, accepted = self._reach.expected(n)
            verifying = times.step(n_pending + max(1, round(drafted))) - without
            if wasted * (n * token + verifying) > spare:
                break
            gain = accepted - rate * (drafted * token + verifying)
            if gain > best.gain:
                best = Plan(gain, n)
        return best

    def draft(
        self,
        session: Session,
        mask: LayerMask,
        pending: Sequence[int],
        limit: int,
        *,
        rate: float,
        times: StepTimes,
        n_pending: int,
        keep: bool = False,
    ) -> Draft:
        """At most ``limit`` tokens by ``session``, as long as one more is worth its time and that
        of its verification, together with ``n_pending`` others."""
        self._unused = 0
        self._limit = limit
        draft = session.draft(
            mask,
            pending,
            limit=limit,
            stop_probability=0.0,
            stop_path=self.least_to_go_on(rate, times, n_pending),
            least_path=self.least_to_verify(rate, times, n_pending),
            acceptance=self.calibration.table(self.name),
            keep=keep,
        )
        return replace(draft, sources=(self.name,) * len(draft.tokens))

    def least_to_go_on(self, rate: float, times: StepTimes, n_pending: int) -> float:
        """The chance that all tokens so far are accepted from which on one more is worth its time
        and that of its verification."""
        return min(1.0, rate * (self._step_cost() + _verifying(times, n_pending)))

    def least_to_verify(self, rate: float, times: StepTimes, n_pending: int) -> float:
        """The chance that a token that was drafted and all before it are accepted from which on it
        is worth its verification."""
        return min(1.0, rate * _verifying(times, n_pending))

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        if round.drafted > 0 and round.draft.source(0) == self.name:
            self._reach.observe(self._limit, round.drafted, round.accepted)
            self._token_seconds.append(round.draft_seconds / round.drafted)

    def _token_cost(self) -> float:
        """Seconds of a drafted token, all in all; of few drafts not that one which had to catch up
        with a text."""
        return self._quantile(2)

    def _step_cost(self) -> float:
        """Seconds of one more drafted token: longer drafts have little else."""
        return self._quantile(4)

    def _quantile(self, part: int) -> float:
        seen = sorted(self._token_seconds)
        return seen[(len(seen) - 1) // part] if seen else self._prior.seconds


def _verifying(times: StepTimes, n_pending: int) -> float:
    """Seconds of verifying one more token."""
    return (times.step(n_pending + 8) - times.step(n_pending + 1)) / 7
