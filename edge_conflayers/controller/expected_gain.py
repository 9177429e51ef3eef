"""The expected gain of one arm's drafts, and how far drafting on is worth its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import NO_PLAN, Plan, Prior
from edge_conflayers.controller.draft_lengths import RECENT_DRAFTS, DraftLengths
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask, TextSession

_FORGET_AFTER = 64  # plans without a draft after which the oldest draft is forgotten; not tuned
_LENGTHS = (1, 2, 3, 4, 6, 8, 12)  # limits that are compared; not tuned


class ExpectedGain:
    """Estimates an arm's gain from its recent drafts, and drafts by it.

    Args:
        name: source of the drafted tokens.
        acceptance: rates by probability, kept up to date by the controller.
        max_draft: most tokens in a draft.
    """

    def __init__(self, name: str, acceptance: AcceptanceRates, max_draft: int) -> None:
        self.name = name
        self.acceptance = acceptance
        self._max_draft = max_draft
        self._limits = [n for n in _LENGTHS if n < max_draft] + [max_draft]
        self._last_limit = max_draft
        self._prior = Prior(0.0, 0.0, 0.0)
        self._lengths = DraftLengths(0.0, 0.0)
        self._token_seconds: deque[float] = deque(maxlen=RECENT_DRAFTS)
        self._unused = 0

    def restart(self, prior: Prior) -> None:
        """Starts anew, for drafts of another kind."""
        self._prior = prior
        self._lengths = DraftLengths(prior.drafted, prior.accepted)
        self._token_seconds.clear()

    def begin_text(self) -> None:
        """Starts another text: how well it drafts there is open, what a draft costs is not."""
        self._lengths = DraftLengths(self._prior.drafted, self._prior.accepted)

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
        self._unused += 1
        if self._unused % _FORGET_AFTER == 0:
            self._lengths.forget_oldest()
        if self._prior.drafted <= 0:
            return NO_PLAN
        best = NO_PLAN
        limit = min(limit, self._max_draft)
        wasted, token = self._lengths.wasted, self._token_cost()
        without = times.step(n_pending)
        for n in self._limits:
            if n > limit:
                break
            drafted, accepted = self._lengths.expected(n)
            verifying = times.step(n_pending + max(1, round(drafted))) - without
            if wasted * (n * token + verifying) > budget:
                break
            gain = accepted - tokens_per_second * (drafted * token + verifying)
            if gain > best.gain:
                best = Plan(gain, n)
        return best

    def draft(
        self,
        session: TextSession,
        mask: LayerMask,
        tokens: Sequence[int],
        limit: int,
        *,
        times: StepTimes,
        tokens_per_second: float,
        n_pending: int,
        keep: bool = False,
    ) -> Draft:
        """Drafts on ``session`` as long as one more token is worth its time and its verification.

        Args:
            tokens: the end of the text, which is not in the session's cache.
            n_pending: tokens that are verified before the draft.
            keep: as for ``Session.draft``.
        """
        self._unused = 0
        self._last_limit = limit
        draft = session.draft(
            mask,
            tokens,
            limit=limit,
            stop_probability=0.0,
            stop_path=self.min_to_go_on(times, tokens_per_second, n_pending),
            least_path=self.min_to_verify(times, tokens_per_second, n_pending),
            acceptance=self.acceptance.table(self.name),
            keep=keep,
        )
        return replace(draft, sources=(self.name,) * len(draft.tokens))

    def min_to_go_on(self, times: StepTimes, tokens_per_second: float, n_pending: int) -> float:
        """The acceptance rate of all tokens so far from which on one more is worth drafting and
        verifying."""
        seconds = self._step_cost() + _verify_seconds(times, n_pending)
        return min(1.0, tokens_per_second * seconds)

    def min_to_verify(self, times: StepTimes, tokens_per_second: float, n_pending: int) -> float:
        """The acceptance rate of a drafted token, with all before it, from which on it is worth
        verifying."""
        return min(1.0, tokens_per_second * _verify_seconds(times, n_pending))

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        if round.drafted > 0 and round.draft.source(0) == self.name:
            self._lengths.observe(self._last_limit, round.drafted, round.accepted)
            self._token_seconds.append(round.draft_seconds / round.drafted)

    def _token_cost(self) -> float:
        """Seconds of a drafted token, all in all: the median, since a draft that had to catch up
        with the text is not the rule."""
        return self._quantile(2)

    def _step_cost(self) -> float:
        """Seconds of one more drafted token: the lower quartile is that of long drafts, which have
        little else."""
        return self._quantile(4)

    def _quantile(self, part: int) -> float:
        seen = sorted(self._token_seconds)
        return seen[(len(seen) - 1) // part] if seen else self._prior.seconds


def _verify_seconds(times: StepTimes, n_pending: int) -> float:
    """Seconds of verifying one more token."""
    return (times.step(n_pending + 8) - times.step(n_pending + 1)) / 7
