"""The arm that drafts with layers dropped, and improves its skip set."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import NO_PLAN, Plan, Prior
from edge_conflayers.controller.expected_gain import ExpectedGain
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.layers import NAME, report_of
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.layer_search import SkipSetSearch

# One-token steps that a search's first advance is expected to take, as it ranks all sub-layers; not
# tuned.
_FIRST_ADVANCE = 20.0


class LayersArm:
    """Drafts under the mask that a search has found.

    Args:
        search: gives the mask. The controller decides when it goes on, and it hears of the last
            round only then.
        prior: what is expected of a mask.
        acceptance: rates by probability, kept up to date by the controller.
        max_draft: most tokens in a draft; not tuned.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        search: SkipSetSearch,
        prior: Callable[[LayerMask], Prior],
        acceptance: AcceptanceRates,
        *,
        max_draft: int = 12,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.search = search
        self._prior = prior
        self._acceptance = acceptance
        self._max_draft = max_draft
        self._clock = clock
        self._start()

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Arm.begin``; the search knows the text already."""
        self._start()
        self._follow_search()

    def _start(self) -> None:
        self._mask = LayerMask()
        self._gain = ExpectedGain(NAME, self._acceptance, self._max_draft)
        self._advance_seconds: deque[float] = deque(maxlen=5)
        self._last: Round | None = None

    def _follow_search(self) -> None:
        if self.search.mask != self._mask:
            self._mask = self.search.mask
            self._gain.restart(self._prior(self._mask))

    def plan(
        self,
        times: StepTimes,
        n_pending: int,
        limit: int,
        *,
        tokens_per_second: float,
        budget: float,
    ) -> Plan:
        """See ``Arm.plan``."""
        if not self._mask:
            return NO_PLAN
        return self._gain.plan(
            times, n_pending, limit, tokens_per_second=tokens_per_second, budget=budget
        )

    def draft(
        self,
        session: TextSession,
        pending: Sequence[int],
        limit: int,
        times: StepTimes,
        tokens_per_second: float,
    ) -> Draft:
        """See ``Arm.draft``."""
        return self._gain.draft(
            *(session, self._mask, pending, limit),
            times=times,
            tokens_per_second=tokens_per_second,
            n_pending=len(pending),
        )

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        self._last = round
        self._gain.observe(round)

    def search_seconds(self, t1: float) -> float | None:
        """What going on with the search is expected to take; None if it has ended."""
        if self.search.finished:
            return None
        return max(self._advance_seconds, default=_FIRST_ADVANCE * t1)

    def advance(self, session: TextSession) -> None:
        """Goes on with the search."""
        began = self._clock()
        if self._last is not None:
            self.search.observe(self._last)
        self.search.advance(session)
        self._advance_seconds.append(self._clock() - began)
        self._follow_search()

    def report(self) -> dict[str, Any]:
        return report_of(self.search)
