"""Drafts with layers dropped, as the controller weighs them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceChances
from edge_conflayers.controller.arm import NOTHING, Expectations, Plan, Prior
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.layers import NAME, report_of
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.layer_search import SkipSetSearch

_FIRST_ADVANCE = 20.0  # one-token steps; a search's first step ranks all sub-layers


class SkipSetArm:
    """Drafts under the mask that a search has found.

    Args:
        search: gives the mask and goes on improving it. When, is decided here: it hears of a round
            only before it goes on.
        prior: of the search's present mask.
        calibration: chances of acceptance by probability, kept by the controller.
        max_draft: most tokens in a draft.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        search: SkipSetSearch,
        prior: Callable[[LayerMask], Prior],
        calibration: AcceptanceChances,
        *,
        max_draft: int = 12,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.search = search
        self._prior_of = prior
        self._clock = clock
        self._mask = LayerMask()
        self._expected = Expectations(NAME, calibration, max_draft)
        self._advance_seconds: deque[float] = deque(maxlen=5)
        self._last: Round | None = None
        self._follow_search()

    def _follow_search(self) -> None:
        if self.search.mask != self._mask:
            self._mask = self.search.mask
            self._expected.restart(self._prior_of(self._mask))

    def plan(self, rate: float, times: StepTimes, n_pending: int, limit: int, spare: float) -> Plan:
        """See ``Arm.plan``."""
        if not self._mask:
            return NOTHING
        return self._expected.plan(rate, times, n_pending, limit, spare)

    def draft(
        self, session: Session, pending: Sequence[int], limit: int, rate: float, times: StepTimes
    ) -> Draft:
        """See ``Arm.draft``."""
        return self._expected.draft(
            *(session, self._mask, pending, limit),
            rate=rate,
            times=times,
            n_pending=len(pending),
        )

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        self._last = round
        self._expected.observe(round)

    def search_seconds(self, t1: float) -> float | None:
        """What going on with the search is expected to take; None if it has ended."""
        if self.search.finished:
            return None
        return max(self._advance_seconds, default=_FIRST_ADVANCE * t1)

    def advance(self, session: Session) -> None:
        """Goes on with the search."""
        began = self._clock()
        if self._last is not None:
            self.search.observe(self._last)
        self.search.advance(session)
        self._advance_seconds.append(self._clock() - began)
        self._follow_search()

    def report(self) -> dict[str, Any]:
        return report_of(self.search)
