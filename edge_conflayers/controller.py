"""Each round: who drafts, how much, or nobody, by expected tokens per second.

Time is worth a rate of tokens, that of the text so far and at least plain decoding's. A draft's
gain is the tokens that it is expected to add less what its time is worth; the draft of the highest
gain is taken, if that is positive (so the long-run rate is the highest: renewal reward).

What must hold: no text takes more than about a hundredth longer than by plain decoding. A draft
that may lose time is only tried when the loss fits what may be lost: a small share of the time so
far, plus part of what drafts have saved, less what they have cost.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from edge_conflayers.account import Account, Allowance, Shadow, undisturbed
from edge_conflayers.candidates import Node, as_draft, best_chain, merge, worth_verifying
from edge_conflayers.draft import ROOT, Draft, Round
from edge_conflayers.drafters import CandidateSource
from edge_conflayers.drafters.skip_sets import SkipSetArm
from edge_conflayers.estimates import AcceptanceChances, StepTimes
from edge_conflayers.session import Session

_RECENT = 9
# Tokens verified together. Each number has a compute graph of its own, of which few stay alive.
_SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
_MOST_CANDIDATES = 24
_NOTHING: tuple[list[Node], float] = ([], 0.0)


@dataclass(frozen=True)
class Caution:
    """How drafts are held back that may not pay.

    Attributes:
        allowance: what may be lost on them.
        search_share: of the time that drafts have saved, what a search for skip sets may take.
        margin: by what factor a draft's gain has to exceed what its time is worth.
        least_chance: of a candidate; less likely ones may pay by themselves, but each loss delays
            the next, likelier one.
        longest_doubt: rounds without a draft after which they are tried all the same.
        patience: rounds in a row without a candidate worth verifying after which a source is only
            asked as often as takes ``idle_share`` of the time.
    """

    allowance: Allowance = field(default_factory=Allowance)
    search_share: float = 0.1
    margin: float = 1.2
    least_chance: float = 0.15
    longest_doubt: int = 48
    patience: int = 6
    idle_share: float = 0.003


class _Source:
    """A source, and whether asking it is worth the time that asking takes."""

    def __init__(self, source: CandidateSource, caution: Caution) -> None:
        self.source = source
        self._caution = caution
        self._useless = 0  # rounds in a row without a candidate worth verifying
        self._rest = 0.0  # rounds until it is asked again
        self._seconds: deque[float] = deque(maxlen=_RECENT)  # of asking it and of its learning
        self.spent = 0.0  # in this round

    def begin(self) -> None:
        """Another text, in which it may help."""
        self._useless, self._rest = 0, 0.0

    def is_asked(self) -> bool:
        """Whether it is to be asked in this round."""
        self._rest -= 1
        return self._rest <= 0

    def heard(self, useful: bool) -> None:
        """Whether it had a candidate worth verifying."""
        self._useless = 0 if useful else self._useless + 1

    def close_round(self, t1: float) -> None:
        """The round in which it was asked is over."""
        self._seconds.append(self.spent)
        self.spent = 0.0
        if self._useless >= self._caution.patience:
            self._rest = median(self._seconds) / (self._caution.idle_share * t1)


class Controller:
    """A drafter that chooses among drafters.

    Args:
        times: of full steps; kept up to date.
        sources: propose candidates at no cost.
        layers: drafts with layers dropped; None if the model or the profile has no skip set.
        calibration: chances of acceptance, kept up to date.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        times: StepTimes,
        sources: Sequence[CandidateSource],
        layers: SkipSetArm | None = None,
        *,
        calibration: AcceptanceChances | None = None,
        caution: Caution | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.times = times
        self.layers = layers
        self.calibration = calibration or AcceptanceChances()
        self._caution = caution or Caution()
        self._clock = clock
        self._sources = [_Source(source, self._caution) for source in sources]
        self._asked: list[_Source] = []
        self._account = Account(self._caution.allowance)
        self._rounds: dict[str, int] = {}
        self._chain = True
        self._searched = 0.0  # seconds, in this text
        self._since_draft = 0  # rounds
        self._shadow: Shadow | None = None
        self._overhead = 0.0
        self._overheads: deque[float] = deque([0.0], maxlen=_RECENT)

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        self._account = Account(self._caution.allowance)
        self._searched = 0.0
        self._since_draft = 0
        self._shadow = None
        self._chain = not session.verifies_trees  # finding out builds a graph
        for each in self._sources:
            each.begin()
            each.source.observe(session, ())

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        self._asked, self._overhead = [], 0.0
        if self.times.plain_due:
            return Draft()
        began = self._clock()
        t1 = self.times.t1
        rate = self._caution.margin * self._account.rate(t1)
        spare = self._account.spare(t1)
        nodes, gain = self._free(session, pending, limit, rate, spare)
        self._overhead = self._clock() - began
        if self._asked:
            self._overheads.append(self._overhead)
        if self.layers is not None and limit > 0:
            plan = self.layers.plan(rate, self.times, len(pending), limit, spare)
            if plan.gain > gain:
                return self.layers.draft(session, pending, plan.limit, rate, self.times)
        return as_draft(nodes) if nodes else Draft()

    def _free(
        self, session: Session, pending: Sequence[int], limit: int, rate: float, spare: float
    ) -> tuple[list[Node], float]:
        """The candidates worth verifying in ``spare`` seconds, which are lost if none is accepted,
        and their gain in tokens."""
        n_pending = len(pending)

        def step(drafted: int) -> float:
            return self.times.step(n_pending + drafted)

        self._asked = [each for each in self._sources if limit > 0 and each.is_asked()]
        # Now and then something unlikely, since a source may have become better.
        doubtful = self._since_draft >= self._caution.longest_doubt
        least_chance = 0.0 if doubtful else self._caution.least_chance
        one_more = max(rate * (step(1) - step(0)), least_chance)
        promising = False
        for each in self._asked:
            began = self._clock()
            each.source.observe(session, pending)
            first = each.source.candidates(1, least=one_more / 2)
            chances = (self.calibration.chance(each.source.name, p) for p in first.probabilities)
            useful = max(chances, default=0.0) > one_more
            each.heard(useful)
            each.spent = self._clock() - began
            promising = promising or useful
        if not promising:
            return _NOTHING
        chain = self._chain
        # What is less likely than this is not worth a place even in the cheapest step.
        least = max(rate * (step(8) - step(1)) / 7 / 2, least_chance / 2)
        most = min(limit, _MOST_CANDIDATES)
        drafts = [each.source.candidates(most, least=least, chain=chain) for each in self._asked]
        merged = merge(drafts, self.calibration.chance)
        nodes = [node for node in merged if node.chance >= least_chance]
        if chain:
            nodes = best_chain(nodes)
        counts = [size - n_pending for size in _SIZES if 0 < size - n_pending <= limit]
        affordable = [n for n in counts if step(n) - step(0) <= spare]
        n, gain = worth_verifying(nodes, affordable, step, rate)
        if n == 0 and self._shadow is None and len(affordable) < len(counts):
            n, _ = worth_verifying(nodes, counts, step, rate)
            if n > 0:
                self._shadow = Shadow(as_draft(nodes[:n]), step(n) - step(0) + self.times.t1)
            return _NOTHING
        return nodes[:n], gain

    def learn(self, session: Session, round: Round) -> None:
        began = self._clock()
        self._observe_chances(round.draft, round.path)
        self._follow_shadow(round)
        verified = len(round.pending) + round.drafted
        self._since_draft = 0 if round.drafted else self._since_draft + 1
        self.times.observe(verified, round.verify_seconds)
        source = round.draft.source(0) if round.drafted else "plain"
        self._rounds[source] = self._rounds.get(source, 0) + 1
        for each in self._asked:
            started = self._clock()
            each.source.learn(session, round)
            each.spent += self._clock() - started
            each.close_round(self.times.t1)
        if self.layers is not None:
            self.layers.observe(round)
        verify_seconds = undisturbed(round.verify_seconds, self.times.step(verified))
        seconds = round.draft_seconds + verify_seconds + self._clock() - began
        if round.drafted == 0 and len(round.pending) == 1:
            self._account.add_plain(seconds, self._overhead + self._clock() - began)
        else:
            self._account.add(round.accepted + 1, seconds, self.times.t1)
        if self.layers is not None:
            self._search(session)

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

    def _follow_shadow(self, round: Round) -> None:
        shadow = self._shadow
        if shadow is None:
            return
        if round.drafted > 0:
            self._shadow = None  # not the text as it would have gone on
            return
        shadow.follow(round.token)
        if shadow.done:
            self._shadow = None
            self._observe_chances(shadow.draft, shadow.accepted)
            self._account.add_evidence(shadow.won(self.times.t1), self.times.t1)

    def _observe_chances(self, draft: Draft, path: Sequence[int]) -> None:
        """Of every candidate whose predecessor was accepted, whether it was drawn."""
        reached = {ROOT, *path}
        accepted = set(path)
        for i in range(len(draft.tokens)):
            if draft.parent(i) in reached:
                self.calibration.observe(draft.source(i), draft.probabilities[i], i in accepted)

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = {
            "rounds_by": dict(self._rounds),
            "t1_ms": self.times.t1 * 1e3,
            "v": {n: self.times.v(n) for n in (2, 4, 8, 16)},
            "won_seconds": self._account.won,
            "overhead_ms": median(self._overheads) * 1e3,
        }
        if self.layers is not None:
            report.update(self.layers.report())
        return report
