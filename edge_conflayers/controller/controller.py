"""The controller: each round, who drafts, how much, or nobody, by expected tokens per second.

A second must bring what this text has brought lately, and at least what plain decoding brings. A
draft's gain is the tokens that it is expected to add, less what its time is worth; the draft with
the highest gain is taken if that is positive, which maximises the long-run rate (renewal reward).

No text should take more than 2 % longer than by plain decoding: a draft that may lose time is made
only within the loss budget (``loss_budget.py``), and sources are polled only as often as that is
not noticed (``polling.py``).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import Arm
from edge_conflayers.controller.candidate_tree import CandidateTree
from edge_conflayers.controller.layers_arm import LayersArm
from edge_conflayers.controller.loss_budget import LossBudget, without_hold_ups
from edge_conflayers.controller.policy import Policy
from edge_conflayers.controller.polling import Polling
from edge_conflayers.controller.shadow_draft import ShadowDraft
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.drafter import BackOff
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine.draft import NO_DRAFT, ROOT, Draft
from edge_conflayers.engine.session import TextSession

_RETRY_PRICE = 0.1  # of its time's worth that a retried draft must bring; not tuned


@dataclass(frozen=True)
class Lineup:
    """Who may draft in one text.

    Attributes:
        sources: propose candidates without a step of any model.
        layers: drafts with layers dropped; None if there is no skip set to use or search for.
        others: more drafters that take time.
        policy: how cautiously.
    """

    sources: Sequence[CandidateSource]
    layers: LayersArm | None = None
    others: Sequence[Arm] = ()
    policy: Policy = field(default_factory=Policy)


class Controller(ABC):
    """Chooses among drafters, text after text.

    Args:
        times: of full-model steps; kept up to date.
        acceptance: rates of proposed tokens; kept up to date.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        times: StepTimes,
        acceptance: AcceptanceRates | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.times = times
        self.acceptance = acceptance or AcceptanceRates()
        self._clock = clock
        self._polling = Polling()
        self._rounds_by: Counter[str] = Counter()
        self._unheard: list[Round] = []  # skipped rounds that nothing was learned from yet
        self._take(Lineup(()), chain=True)

    @abstractmethod
    def line_up(self, session: TextSession, prompt: Sequence[int]) -> Lineup:
        """Says who may draft in the text that begins now, whose prompt the session holds. Begins
        the text for ``times`` and for what else it knows of."""

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Drafter.begin``."""
        lineup = self.line_up(session, prompt)
        for arm in _arms(lineup):
            arm.begin(session, prompt)
        for source in lineup.sources:
            if source.self_calibrated:
                self.acceptance.self_calibrate(source.name)
        self.acceptance.begin_text()
        self._take(lineup, chain=not session.verifies_trees)
        for source in lineup.sources:
            source.observe(session, ())

    def _take(self, lineup: Lineup, *, chain: bool) -> None:
        """Starts a text with this line-up; ``chain``: trees are not verified."""
        self._policy = lineup.policy
        self._budget = LossBudget(lineup.policy.budget)
        self._sources = tuple(lineup.sources)
        self._tree = CandidateTree(self._sources, self.times, self.acceptance)
        self._always_learning = tuple(each for each in self._sources if each.learns_always)
        self._layers = lineup.layers
        self._arms = _arms(lineup)
        lookups = [each for each in self._sources if isinstance(each, LookupSource)]
        self._polling.begin_text(lookups)
        self._only_lookups = len(lookups) == len(self._sources) > 0
        self._chain = chain
        self._unheard.clear()
        self._rounds_by.clear()
        self._searched = 0.0  # seconds spent on searching in this text
        self._since_draft = 0  # rounds
        self._shadow: ShadowDraft | None = None
        self._deciding = 0.0  # seconds in this round, less what sources weigh themselves
        self._arms_due = True  # whether arms have to be asked next time

    # Each round, from here on: back_off, then skipped, or draft and learn.

    def back_off(self) -> BackOff | None:
        """See ``PollingDrafter.back_off``."""
        back_off = self._polling.back_off()
        if back_off is not None and self._always_learning:  # from every round's logits
            return replace(back_off, rounds=1)
        return back_off

    def skipped(self, session: TextSession, rounds: Sequence[Round], woken: bool) -> None:
        """See ``PollingDrafter.skipped``."""
        for source in self._always_learning:
            for round in rounds:
                source.learn(session, round)
        self._unheard.extend(rounds)
        self._polling.skipped(rounds, woken)

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        """See ``Drafter.draft``."""
        began = self._clock()
        self._hear_skipped()
        if not self._polling.followed:
            for source in self._sources:
                source.observe(session, pending)
        may_draft = limit > 0 and not self.times.plain_due
        draft, gain, weighed = NO_DRAFT, 0.0, 0.0
        if may_draft:
            for source in self._sources:
                weighed += source.look_ahead()
            draft, gain = self._best_candidates(len(pending), limit)
        self._deciding = self._clock() - began - weighed
        self._arms_due = not may_draft
        if may_draft and self._arms:
            draft = self._best_arm(session, pending, limit, draft, gain)
        return draft

    def _best_candidates(self, n_pending: int, limit: int) -> tuple[Draft, float]:
        """The candidates worth verifying within the loss budget, and their gain in tokens."""
        policy, t1 = self._policy, self.times.t1
        tokens_per_second, min_acceptance = self._worth(policy.margin), policy.min_acceptance
        if self._retrying:
            tokens_per_second, min_acceptance = _RETRY_PRICE * tokens_per_second, 0.0

        def choose(budget: float) -> tuple[Draft, float]:
            return self._tree.choose(
                n_pending,
                limit,
                tokens_per_second=tokens_per_second,
                budget=budget,
                min_acceptance=min_acceptance,
                chain=self._chain,
            )

        best = choose(inf)
        n = len(best[0].tokens)
        if n == 0:
            return best
        # A single candidate may always be tried if anything may be lost.
        one = min(self._verify_seconds(n_pending, 1), self._budget.left(t1))
        budget = max(self._budget.for_one_draft(t1, policy.draft_share), one)
        seconds = self._verify_seconds(n_pending, n)
        if seconds <= budget:
            return best
        affordable = choose(budget)
        if not affordable[0].tokens and self._shadow is None:
            self._shadow = ShadowDraft(best[0], t1 + seconds)
        return affordable

    def _best_arm(
        self, session: TextSession, pending: Sequence[int], limit: int, draft: Draft, gain: float
    ) -> Draft:
        """Drafts by the arm of the highest gain, if that is more than the candidates'."""
        policy, times = self._policy, self.times
        worth = self._worth(policy.arm_margin)
        # The candidates' gain at the arms' price of time.
        dearer = self._worth(policy.margin) - worth
        gain += dearer * self._verify_seconds(len(pending), len(draft.tokens))
        left = self._budget.left(times.t1) - policy.reserve * times.t1
        chosen: tuple[Arm, int] | None = None
        for arm in self._arms:
            plan = arm.plan(
                *(times, len(pending), limit),
                tokens_per_second=worth,
                budget=policy.arm_share * left,
            )
            self._arms_due = self._arms_due or plan.limit > 0
            if plan.gain > gain:
                gain, chosen = plan.gain, (arm, plan.limit)
        if chosen is None:
            return draft
        arm, most = chosen
        return arm.draft(session, pending, most, times, worth)

    def _worth(self, margin: float) -> float:
        """Tokens that a second must bring to a draft."""
        t1 = self.times.t1
        return max(margin / t1, self._budget.tokens_per_second(t1))

    def _verify_seconds(self, n_pending: int, drafted: int) -> float:
        """Seconds of verifying a draft, which are lost if none of it is accepted."""
        return self.times.step(n_pending + drafted) - self.times.step(n_pending)

    @property
    def _retrying(self) -> bool:
        return self._since_draft >= self._policy.retry_after

    def learn(self, session: TextSession, round: Round) -> None:
        """See ``Drafter.learn``."""
        began = self._clock()
        for source in self._sources:
            source.learn(session, round)
        learned = self._clock()
        self._hear(round, learned - began)
        t1 = self.times.t1
        self._polling.polled(
            round,
            self._deciding + self._clock() - learned,
            t1,
            may_draft=self._budget.left(t1) > 0,
            wake_at=self._wake_at() if self._only_lookups and not self._arms_due else None,
        )
        if self._layers is not None:
            self._search_on(session, self._layers)

    def _wake_at(self) -> float:
        """The probability from which on a candidate may be worth verifying, once a second is worth
        no more than by plain decoding."""
        price = _RETRY_PRICE if self._retrying else 1.0
        return price * self._policy.margin * (self.times.v(2) - 1.0)

    def _hear_skipped(self) -> None:
        """Learns from the rounds that went by, which were one-token steps."""
        skipped = self._unheard
        if not skipped:
            return
        self._since_draft += len(skipped)
        self._rounds_by["plain"] += len(skipped)
        self.times.observe_plain(round.verify_seconds for round in skipped)
        t1 = self.times.t1
        seconds = sum(without_hold_ups(round.verify_seconds, t1) for round in skipped)
        self._budget.add_plain(seconds, 0.0, len(skipped))
        for round in skipped:
            self._follow_shadow(round)
        skipped.clear()

    def _hear(self, round: Round, learning: float) -> None:
        """Learns from a round, from which the sources took ``learning`` seconds to learn."""
        began = self._clock()
        self._follow_shadow(round)
        if round.drafted:
            self._count_accepted(round.draft, round.path, (ROOT, *round.path))
        self._since_draft = 0 if round.drafted else self._since_draft + 1
        self._rounds_by[round.draft.source(0) if round.drafted else "plain"] += 1
        verified = len(round.pending) + round.drafted
        self.times.observe(verified, round.verify_seconds)
        for arm in self._arms:
            arm.observe(round)
        verifying = without_hold_ups(round.verify_seconds, self.times.step(verified))
        overhead = round.draft_seconds + learning + self._clock() - began
        if verified == 1:
            self._budget.add_plain(verifying + overhead, overhead)
        else:
            self._budget.add_draft(round.accepted + 1, verifying + overhead, self.times.t1)

    def _follow_shadow(self, round: Round) -> None:
        shadow = self._shadow
        if shadow is None or round.drafted > 0:
            self._shadow = None  # the text has not gone on token by token
            return
        shadow.follow(round.token)
        if shadow.is_decided(self.times.t1):
            self._shadow = None
            self._count_accepted(shadow.draft, shadow.path, shadow.tried)
            self._budget.add_evidence(shadow.won(self.times.t1), self.times.t1)

    def _count_accepted(self, draft: Draft, path: Sequence[int], tried: Sequence[int]) -> None:
        """Counts every candidate that followed a node in ``tried`` as accepted or not."""
        accepted = set(path)
        for i in range(len(draft.tokens)):
            if draft.parent(i) in tried:
                self.acceptance.observe(draft.source(i), draft.probabilities[i], i in accepted)

    def _search_on(self, session: TextSession, layers: LayersArm) -> None:
        """Goes on searching for skip sets with time that drafts have saved."""
        for_search = self._policy.search_share * self._budget.won - self._searched
        if for_search <= 0:
            return
        expected = layers.search_seconds(self.times.t1)
        if expected is None or expected > for_search:
            return
        began = self._clock()
        layers.advance(session)
        spent = self._clock() - began
        self._searched += spent
        self._budget.spend(spent)

    def report(self) -> dict[str, Any]:
        """See ``Drafter.report``."""
        self._hear_skipped()
        report: dict[str, Any] = {
            "rounds_by": dict(self._rounds_by),
            "t1_ms": self.times.t1 * 1e3,
            "v": {n: self.times.v(n) for n in (2, 4, 8, 16)},
            "won_seconds": self._budget.won,
            "overhead_ms": self._polling.usual_seconds * 1e3,
        }
        for arm in self._arms:
            report.update(arm.report())
        return report


def _arms(lineup: Lineup) -> list[Arm]:
    return [*lineup.others] if lineup.layers is None else [lineup.layers, *lineup.others]
