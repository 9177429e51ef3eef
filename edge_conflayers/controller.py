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
from dataclasses import dataclass
from statistics import median
from typing import Any

from edge_conflayers.candidates import Node, as_draft, best_chain, merge, worth_verifying
from edge_conflayers.draft import ROOT, Draft, Round
from edge_conflayers.drafters import CandidateSource
from edge_conflayers.drafters.skip_sets import SkipSetArm
from edge_conflayers.estimates import Calibration, StepTimes
from edge_conflayers.session import Session

_FADE = 0.97
# Tokens verified together. Each number has a compute graph of its own, of which few stay alive.
_SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
_MOST_CANDIDATES = 24
_LEAST_DOUBT = 0.5


@dataclass(frozen=True)
class Caution:
    """How much time may be lost on drafts that turn out not to pay.

    Attributes:
        share: of the time of the text so far.
        steps: one-token steps' time at the start of a text.
        of_savings: of the time that drafts have saved so far.
        patience: rounds in a row without a candidate worth verifying after which a source is not
            asked for a while; the while doubles each time, up to ``longest_nap`` rounds.
    """

    share: float = 0.004
    steps: float = 0.5
    of_savings: float = 0.5
    patience: int = 12
    longest_nap: int = 64


class _Account:
    """Time won and lost by drafts in the text at hand, in seconds."""

    def __init__(self, caution: Caution) -> None:
        self._caution = caution
        self.elapsed = 0.0
        self.won = 0.0
        self.tokens = 0.0
        self.seconds = 0.0

    def spare(self, t1: float) -> float:
        """Seconds that may be lost now."""
        caution = self._caution
        reserve = caution.share * self.elapsed + caution.steps * t1
        return reserve + (self.won if self.won < 0 else self.won * caution.of_savings)

    def rate(self, t1: float) -> float:
        """Tokens per second that time is worth."""
        recent = self.tokens / self.seconds if self.seconds > 0 else 0.0
        return max(1 / t1, recent)

    def add(self, tokens: int, seconds: float, t1: float, *, plain: bool) -> None:
        self.elapsed += seconds
        self.tokens = self.tokens * _FADE + tokens
        self.seconds = self.seconds * _FADE + seconds
        if not plain:
            self.won += tokens * t1 - seconds


class _Awake:
    """Whether a source is worth asking, so that one that never helps costs nothing."""

    def __init__(self, caution: Caution) -> None:
        self._caution = caution
        self._useless = 0
        self._nap = caution.patience
        self._sleep = 0

    def now(self) -> bool:
        """To be asked once a round."""
        if self._sleep:
            self._sleep -= 1
        return self._sleep == 0

    def heard(self, useful: bool) -> None:
        """Whether it had something worth verifying."""
        if useful:
            self._useless, self._nap = 0, self._caution.patience
            return
        self._useless += 1
        if self._useless >= self._caution.patience:
            self._sleep, self._useless = self._nap, self._caution.patience // 2
            self._nap = min(2 * self._nap, self._caution.longest_nap)


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
        calibration: Calibration | None = None,
        caution: Caution | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.times = times
        self.sources = sources
        self.layers = layers
        self.calibration = calibration or Calibration()
        self._caution = caution or Caution()
        self._clock = clock
        self._awake = {source.name: _Awake(self._caution) for source in sources}
        self._asked: list[CandidateSource] = []
        self._account = _Account(self._caution)
        self._rounds: dict[str, int] = {}
        self._overheads: deque[float] = deque([0.0], maxlen=9)

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        self._account = _Account(self._caution)
        for source in self.sources:
            source.observe(session, ())

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        began = self._clock()
        t1 = self.times.t1
        rate = self._account.rate(t1)
        nodes, gain, risk = self._free(session, pending, limit, rate)
        spare = self._account.spare(t1)
        if risk > spare:
            nodes, gain = [], 0.0
        self._overheads.append(self._clock() - began)
        if self.layers is not None and limit > 0:
            plan = self.layers.plan(rate, self.times, len(pending), limit, spare)
            if plan.gain > gain:
                return self.layers.draft(session, pending, plan.limit, rate, self.times)
        return as_draft(nodes) if nodes else Draft()

    def _free(
        self, session: Session, pending: Sequence[int], limit: int, rate: float
    ) -> tuple[list[Node], float, float]:
        """The candidates worth verifying, their gain in tokens, and the seconds lost if none is
        accepted times the chance of that."""
        self._asked = [source for source in self.sources if self._awake[source.name].now()]
        if not self._asked or limit <= 0:
            return [], 0.0, 0.0
        n_pending = len(pending)
        chain = not session.verifies_trees
        # What is less likely than this is not worth a place even in the cheapest step.
        least = rate * (self.times.step(n_pending + 8) - self.times.step(n_pending + 1)) / 7 / 2
        drafts = {}
        for source in self._asked:
            source.observe(session, pending)
            most = min(limit, _MOST_CANDIDATES)
            drafts[source.name] = source.candidates(most, least=least, chain=chain)
        nodes = merge(drafts.values(), self.calibration.chance)
        if chain:
            nodes = best_chain(nodes)

        def step(drafted: int) -> float:
            return self.times.step(n_pending + drafted)

        counts = [size - n_pending for size in _SIZES if 0 < size - n_pending <= limit]
        n, gain = worth_verifying(nodes, counts, step, rate)
        chosen = nodes[:n]
        helpful = {node.source for node in chosen}
        for name, awake in self._awake.items():
            if name in drafts:
                awake.heard(name in helpful)
        if not chosen:
            return [], 0.0, 0.0
        likely = sum(node.chance for node in chosen if node.parent is None)
        none_accepted = max(_LEAST_DOUBT, 1.0 - likely)
        return chosen, gain, none_accepted * (step(n) - step(0))

    def learn(self, session: Session, round: Round) -> None:
        began = self._clock()
        self._observe_chances(round)
        verified = len(round.pending) + round.drafted
        self.times.observe(verified, round.verify_seconds)
        source = round.draft.source(0) if round.drafted else "plain"
        self._rounds[source] = self._rounds.get(source, 0) + 1
        for asked in self._asked:
            asked.learn(session, round)
        if source == "layers" and self.layers is not None:
            self.layers.observe(round)
        seconds = round.draft_seconds + round.verify_seconds + self._clock() - began
        plain = round.drafted == 0 and len(round.pending) == 1
        self._account.add(round.accepted + 1, seconds, self.times.t1, plain=plain)
        if self.layers is not None:
            self._search(session)

    def _search(self, session: Session) -> None:
        """Goes on searching for skip sets with time that drafts have won."""
        assert self.layers is not None
        if self._account.won <= 0:
            return
        cost = self.layers.search_seconds
        if cost is None or cost > self._account.spare(0.0):
            return
        began = self._clock()
        self.layers.advance(session)
        spent = self._clock() - began
        self._account.won -= spent
        self._account.elapsed += spent

    def _observe_chances(self, round: Round) -> None:
        """Of every candidate whose predecessor was accepted, whether it was drawn."""
        draft = round.draft
        reached = {ROOT, *round.path}
        accepted = set(round.path)
        for i in range(round.drafted):
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
