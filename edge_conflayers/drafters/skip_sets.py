"""Drafts with layers dropped, as the controller weighs them: expected gain, length by marginal
gain."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_conflayers.draft import Draft, Round
from edge_conflayers.drafters.layers import NAME, report_of
from edge_conflayers.estimates import AcceptanceChances, StepTimes
from edge_conflayers.search import SkipSetSearch
from edge_conflayers.session import LayerMask, Session

_RECENT = 24
_PRIOR_ROUNDS = 3
_FORGET_AFTER = 64
_PRIOR_WASTED = 0.6
_FIRST_ADVANCE = 20.0  # one-token steps; a search's first step ranks all sub-layers


@dataclass(frozen=True)
class Plan:
    """One draft.

    Attributes:
        gain: tokens that it is expected to add, less what its time is worth.
        limit: most tokens to draft.
    """

    gain: float
    limit: int


@dataclass(frozen=True)
class SkipSetPrior:
    """What is known of a skip set before it is used.

    Attributes:
        accepted, drafted: tokens a round.
        cost: c(S), a drafted token's time over T1.
    """

    accepted: float
    drafted: float
    cost: float


_NOTHING = Plan(float("-inf"), 0)


class SkipSetArm:
    """Drafts under the mask that a search has found, as long as one more token is worth its time.

    Args:
        search: gives the mask and goes on improving it.
        prior: of the search's present mask.
        calibration: chances of acceptance by probability, kept by the controller.
        max_draft: most tokens in a draft.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        search: SkipSetSearch,
        prior: Callable[[LayerMask], SkipSetPrior],
        calibration: AcceptanceChances,
        *,
        max_draft: int = 12,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.search = search
        self._prior_of = prior
        self._calibration = calibration
        self._max_draft = max_draft
        self._clock = clock
        self._mask = LayerMask()
        self._rounds: deque[tuple[int, int]] = deque(maxlen=_RECENT)
        self._token_seconds: deque[float] = deque(maxlen=_RECENT)
        self._advance_seconds: deque[float] = deque(maxlen=5)
        self._unused = 0
        self._follow_search()

    def _follow_search(self) -> None:
        if self.search.mask != self._mask:
            self._mask = self.search.mask
            self._prior = self._prior_of(self._mask)
            self._rounds.clear()
            self._token_seconds.clear()

    def _token_cost(self, times: StepTimes) -> float:
        """Seconds of a drafted token."""
        seen = sorted(self._token_seconds)
        return seen[len(seen) // 2] if seen else self._prior.cost * times.t1

    def plan(self, rate: float, times: StepTimes, n_pending: int, limit: int, spare: float) -> Plan:
        """Of a draft now, when a second is worth ``rate`` tokens and ``spare`` seconds may be
        lost on the chance that nothing is accepted."""
        if not self._mask:
            return _NOTHING
        self._unused += 1
        if self._unused % _FORGET_AFTER == 0 and self._rounds:
            self._rounds.popleft()
        weight = _PRIOR_ROUNDS + len(self._rounds)
        prior = self._prior
        drafted = (prior.drafted * _PRIOR_ROUNDS + sum(d for d, _ in self._rounds)) / weight
        accepted = (prior.accepted * _PRIOR_ROUNDS + sum(a for _, a in self._rounds)) / weight
        wasted = (sum(a == 0 for _, a in self._rounds) + _PRIOR_ROUNDS * _PRIOR_WASTED) / weight
        token = self._token_cost(times)
        verifying = times.step(n_pending + max(1, round(drafted))) - times.step(n_pending)
        limit = min(limit, self._max_draft, int((spare / wasted - verifying) / token))
        if limit <= 0 or drafted <= 0:
            return _NOTHING
        share = min(1.0, limit / drafted)
        return Plan(share * (accepted - rate * drafted * token) - rate * verifying, limit)

    def draft(
        self, session: Session, pending: Sequence[int], limit: int, rate: float, times: StepTimes
    ) -> Draft:
        """Drafts while the chance that all tokens so far are accepted is worth the time of one
        more and of its verification."""
        n = len(pending)
        one_more = self._token_cost(times) + (times.step(n + 8) - times.step(n + 1)) / 7
        self._unused = 0
        draft = session.draft(
            self._mask,
            pending,
            limit=limit,
            stop_probability=0.0,
            stop_path=min(1.0, rate * one_more),
            acceptance=self._calibration.table(NAME),
        )
        sources = (NAME,) * len(draft.tokens)
        return Draft(draft.tokens, draft.probabilities, draft.parents, sources)

    def observe(self, round: Round) -> None:
        """Hear what became of a round, whoever drafted."""
        self.search.observe(round)
        if round.drafted > 0 and round.draft.source(0) == NAME:
            self._rounds.append((round.drafted, round.accepted))
            self._token_seconds.append(round.draft_seconds / round.drafted)

    def search_seconds(self, t1: float) -> float | None:
        """What going on with the search is expected to take; None if it has ended."""
        if self.search.finished:
            return None
        return max(self._advance_seconds, default=_FIRST_ADVANCE * t1)

    def advance(self, session: Session) -> None:
        """Goes on with the search."""
        began = self._clock()
        self.search.advance(session)
        self._advance_seconds.append(self._clock() - began)
        self._follow_search()

    def report(self) -> dict[str, Any]:
        return report_of(self.search)
