"""Each round: who drafts, how much, or nobody, by expected tokens per second.

Time is worth a rate of tokens, that of the text so far and at least plain decoding's. A draft's
gain is the tokens that it is expected to add less what its time is worth; the draft of the highest
gain is taken, if that is positive (so the long-run rate is the highest: renewal reward).

The aim: no text takes more than a fiftieth longer than by plain decoding. A draft that may lose
time is only tried when the loss fits what may be lost (``account.py``). Where looking for
candidates takes time that is noticed, rounds go by without (``looks.py``): nobody is asked, and
what became of them is heard of at the next look.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceChances
from edge_conflayers.controller.arm import Arm
from edge_conflayers.controller.candidate_tree import Candidates
from edge_conflayers.controller.layers_arm import SkipSetArm
from edge_conflayers.controller.loss_budget import Account, Allowance, Shadow, undisturbed
from edge_conflayers.controller.polling import Looks
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.drafter import Pause
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.source import CandidateSource, FollowingSource
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.session import Session

_CURIOUS = 0.1  # of what time is worth, when something is tried all the same
_NO_DRAFT = Draft()


@dataclass(frozen=True)
class Caution:
    """How drafts are held back that may not pay.

    Attributes:
        allowance: what may be lost on them.
        search_share: of the time that drafts have saved, what a search for skip sets may take.
        margin: by what factor the gain of candidates has to exceed what their time is worth in
            plain decoding: the best of many is seldom as good as it looks, and what is spent on
            doubtful ones is missing for the next, likelier ones.
        risk: of what may be lost, how much one draft of more than one candidate may risk if what
            was won is less than that: a text that begins with a bad one has something left for the
            next.
        arm_margin: the same as ``margin`` of a drafter that takes time, known by its recent drafts.
        arm_risk: of what may be lost, how much one draft of such a drafter may risk, since a single
            one costs as much as many candidates.
        reserve: one-token steps of what may be lost that are for candidates alone.
        least_chance: of a candidate, for the same reason.
        longest_doubt: rounds without a draft after which they are tried all the same.
    """

    allowance: Allowance = field(default_factory=Allowance)
    search_share: float = 0.1
    margin: float = 2.0
    risk: float = 1 / 3
    arm_margin: float = 1.15
    arm_risk: float = 1 / 3
    reserve: float = 0.0
    least_chance: float = 0.1
    longest_doubt: int = 48


FORESEEING = Caution(margin=1.5, risk=1 / 2, reserve=1.0, least_chance=0.04)
"""Where tokens are foreseen in any text, a bad beginning is often made good."""


class Controller:
    """A drafter that chooses among drafters.

    Args:
        times: of full steps; kept up to date.
        sources: propose candidates at no cost.
        layers: drafts with layers dropped; None if the model or the profile has no skip set.
        others: more drafters that take time.
        calibration: chances of acceptance, kept up to date.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        times: StepTimes,
        sources: Sequence[CandidateSource],
        layers: SkipSetArm | None = None,
        *,
        others: Sequence[Arm] = (),
        calibration: AcceptanceChances | None = None,
        caution: Caution | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.times = times
        self.layers = layers
        self._arms: list[Arm] = [*others] if layers is None else [layers, *others]
        self.calibration = calibration or AcceptanceChances()
        self._caution = caution or Caution()
        self._clock = clock
        for source in sources:
            if source.calibrated:
                self.calibration.trust(source.name)
        self._candidates = Candidates(sources, times, self.calibration)
        self._always_learning = tuple(source for source in sources if source.learns_always)
        following = [source for source in sources if isinstance(source, FollowingSource)]
        self._looks = Looks(following)
        self._all_follow = len(following) == len(sources) > 0
        self._unheard: list[Round] = []  # that went by without a look
        self._account = Account(self._caution.allowance)
        self._rounds_by: Counter[str] = Counter()
        self._chain = True
        self._searched = 0.0  # seconds, in this text
        self._since_draft = 0  # rounds
        self._shadow: Shadow | None = None
        self._looking = 0.0  # seconds in this round, less what sources weigh themselves
        self._others_asked = True  # whether others than sources have to be asked next time

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        self._account = Account(self._caution.allowance)
        self.calibration.begin_text()
        self._searched = 0.0
        self._since_draft = 0
        self._shadow = None
        self._looks.begin()
        self._unheard.clear()
        self._chain = not session.verifies_trees  # finding out builds a graph
        for source in self._candidates.sources:
            source.observe(session, ())

    def pause(self) -> Pause | None:
        pause = self._looks.pause()
        if pause is not None and self._always_learning:  # from every round's logits
            return replace(pause, rounds=1)
        return pause

    def passed(self, session: Session, rounds: Sequence[Round], called: bool) -> None:
        for source in self._always_learning:
            for round in rounds:
                source.learn(session, round)
        self._unheard.extend(rounds)
        self._looks.passed(rounds, called)

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        began = self._clock()
        self._hear_skipped()
        times = self.times
        spare = self._account.spare(times.t1)
        draft, gain = _NO_DRAFT, 0.0
        rate = self._rate(self._caution.margin)
        if not self._looks.followed:
            for source in self._candidates.sources:
                source.observe(session, pending)
        if not times.plain_due:
            risk = self._account.at_risk(times.t1, self._caution.risk)
            one_candidate = min(self._at_risk(len(pending), 1), spare)
            draft, gain = self._free(len(pending), limit, max(risk, one_candidate))
        weighed = sum(source.weighed_seconds for source in self._candidates.sources)
        self._looking = self._clock() - began - weighed
        self._others_asked = limit <= 0 or times.plain_due
        if self._others_asked or not self._arms:
            return draft
        arm_rate = self._rate(self._caution.arm_margin)
        # As the arms reckon theirs.
        gain += (rate - arm_rate) * self._at_risk(len(pending), len(draft.tokens))
        risk = self._caution.arm_risk * (spare - self._caution.reserve * times.t1)
        chosen = None
        for arm in self._arms:
            plan = arm.plan(arm_rate, times, len(pending), limit, risk)
            self._others_asked = self._others_asked or plan.limit > 0
            if plan.gain > gain:
                gain, chosen = plan.gain, (arm, plan.limit)
        if chosen is not None:
            arm, most = chosen
            draft = arm.draft(session, pending, most, arm_rate, times)
        return draft

    def _rate(self, margin: float) -> float:
        """Tokens that a second is worth to a draft."""
        return max(margin / self.times.t1, self._account.rate(self.times.t1))

    def _at_risk(self, n_pending: int, drafted: int) -> float:
        """Seconds of verifying a draft, which are lost if none of it is accepted."""
        return self.times.step(n_pending + drafted) - self.times.step(n_pending)

    @property
    def _doubtful(self) -> bool:
        """Whether to try what would not pay: a source may have become better."""
        return self._since_draft >= self._caution.longest_doubt

    def _free(self, n_pending: int, limit: int, spare: float) -> tuple[Draft, float]:
        """The candidates worth verifying in ``spare`` seconds, which are lost if none is accepted,
        and their gain in tokens."""
        rate, least_chance = self._rate(self._caution.margin), self._caution.least_chance
        if self._doubtful:
            rate, least_chance = _CURIOUS * rate, 0.0

        def choose(spare: float) -> tuple[Draft, float]:
            return self._candidates.choose(
                n_pending,
                limit,
                rate=rate,
                spare=spare,
                least_chance=least_chance,
                chain=self._chain,
            )

        draft, gain = choose(inf)
        if not draft.tokens:
            return draft, gain
        at_risk = self._at_risk(n_pending, len(draft.tokens))
        if at_risk <= spare:
            return draft, gain
        affordable = choose(spare)
        if not affordable[0].tokens and self._shadow is None:
            self._shadow = Shadow(draft, self.times.t1 + at_risk)
        return affordable

    def learn(self, session: Session, round: Round) -> None:
        began = self._clock()
        for source in self._candidates.sources:
            source.learn(session, round)
        learned = self._clock()
        self._hear(round, learned - began)
        t1 = self.times.t1
        self._looks.made(
            round,
            self._looking + self._clock() - learned,
            t1,
            may_draft=self._account.spare(t1) > 0,
            bar=self._least_worth() if self._all_follow and not self._others_asked else None,
        )
        if self.layers is not None:
            self._search(session)

    def _least_worth(self) -> float:
        """The probability from which on a candidate may be worth its verification, once time is
        worth no more than plain decoding's."""
        curious = _CURIOUS if self._doubtful else 1.0
        return curious * self._caution.margin * (self.times.v(2) - 1.0)

    def _hear_skipped(self) -> None:
        """What became of the rounds without a look, one-token steps all of them."""
        skipped = self._unheard
        if not skipped:
            return
        self._since_draft += len(skipped)
        self._rounds_by["plain"] += len(skipped)
        self.times.observe_plain(round.verify_seconds for round in skipped)
        most = self.times.t1
        seconds = sum(undisturbed(round.verify_seconds, most) for round in skipped)
        self._account.add_plain(seconds, 0.0, len(skipped))
        for round in skipped:
            self._follow(round)
        skipped.clear()

    def _hear(self, round: Round, learning: float) -> None:
        """What became of a round, from which the sources took ``learning`` seconds to learn."""
        began = self._clock()
        self._follow(round)
        if round.drafted:
            self._observe_chances(round.draft, round.path, (ROOT, *round.path))
        self._since_draft = 0 if round.drafted else self._since_draft + 1
        self._rounds_by[round.draft.source(0) if round.drafted else "plain"] += 1
        verified = len(round.pending) + round.drafted
        self.times.observe(verified, round.verify_seconds)
        for arm in self._arms:
            arm.observe(round)
        verify_seconds = undisturbed(round.verify_seconds, self.times.step(verified))
        overhead = round.draft_seconds + learning + self._clock() - began
        if verified == 1:
            self._account.add_plain(verify_seconds + overhead, overhead)
        else:
            self._account.add(round.accepted + 1, verify_seconds + overhead, self.times.t1)

    def _search(self, session: Session) -> None:
        """Goes on searching for skip sets with time that drafts have won."""
        assert self.layers is not None
        for_search = self._caution.search_share * self._account.won - self._searched
        if for_search <= 0:
            return
        cost = self.layers.search_seconds(self.times.t1)
        if cost is None or cost > for_search:
            return
        began = self._clock()
        self.layers.advance(session)
        spent = self._clock() - began
        self._searched += spent
        self._account.spend(spent)

    def _follow(self, round: Round) -> None:
        shadow = self._shadow
        if shadow is None or round.drafted > 0:
            self._shadow = None  # not the text as it would have gone on
            return
        shadow.follow(round.token)
        if shadow.tells(self.times.t1):
            self._shadow = None
            self._observe_chances(shadow.draft, shadow.path, shadow.tried)
            self._account.add_evidence(shadow.won(self.times.t1), self.times.t1)

    def _observe_chances(self, draft: Draft, path: Sequence[int], tried: Sequence[int]) -> None:
        """Of every candidate that followed a node in ``tried``, whether it was drawn."""
        accepted = set(path)
        for i in range(len(draft.tokens)):
            if draft.parent(i) in tried:
                self.calibration.observe(draft.source(i), draft.probabilities[i], i in accepted)

    def report(self) -> dict[str, Any]:
        self._hear_skipped()
        report: dict[str, Any] = {
            "rounds_by": dict(self._rounds_by),
            "t1_ms": self.times.t1 * 1e3,
            "v": {n: self.times.v(n) for n in (2, 4, 8, 16)},
            "won_seconds": self._account.won,
            "overhead_ms": self._looks.usual_seconds * 1e3,
        }
        for arm in self._arms:
            report.update(arm.report())
        return report
