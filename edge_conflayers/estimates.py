"""What the controller believes, and how rounds change it: step times and chances of acceptance."""

from __future__ import annotations

import ctypes
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from statistics import median
from typing import Any

from edge_conflayers.errors import BadInput

_RECENT = 9
_RECENT_PLAIN = 16
_FORGOTTEN = 3  # of as many recent steps, from text to text
_PRIOR_WEIGHT = 3
_T1_STALE = 32  # steps since the last one-token step
_LEAST_PLAIN = 2
_MOST_TOKENS = 64  # of a step whose V is kept up to date
_TELLING = 0.08  # V(n) - 1 that says something of other n
_LEAST_SCALE = 0.25
_NOTICED = 0.05  # a relative change of the scale
CHANCE_BINS = 8
RECENT_DRAFTS = 24
_PRIOR_DRAFTS = 3.0
_PRIOR_WASTED = 0.6
_POSITIONS = 16
_PRIOR_TRIALS = 4.0
_MEMORY = 256.0  # trials after which older ones fade
_FOREIGN = 24.0  # trials that those of other texts count for, at most
# Of trusted sources, in tokens that were expected to be accepted. Texts differ: what was learned of
# others counts for little, so that one in which proposals fail is soon known.
_PRIOR_EXPECTED = 2.0
_FOREIGN_EXPECTED = 12.0


class StepTimes:
    """Seconds of a full step over n tokens, as it changes with the context and the machine.

    T1 is the lower quartile of recent one-token steps: those after a larger batch are slower, and
    what counts is what plain decoding alone would take. V(n) = T1's multiple is the median of
    recent steps over n tokens together with what was measured beforehand. What more tokens take
    depends on how fast memory is at the moment, which is the same for all n: so what was measured
    of V(n) - 1 is scaled by how it has changed for the n that there were steps of.

    Args:
        t1: seconds of a one-token step, measured beforehand; of use until there was one.
        v: V(n) for some n > 1, measured beforehand; between them it is linear.
        earlier: of the text before: what its last steps over several tokens took counts for this
            one as well, the less the more texts ago it was.

    Raises:
        BadInput: times that are not positive, or no V.
    """

    def __init__(self, t1: float, v: Mapping[int, float], earlier: StepTimes | None = None) -> None:
        if not v or not all(math.isfinite(x) and x > 0 for x in (t1, *v.values())):
            raise BadInput("the measured step times are not positive numbers; measure them again")
        points = sorted({1: 1.0, **v}.items())
        self._priors = [_line(points, n) for n in range(_MOST_TOKENS + 1)]
        self._points = points
        self._ratios: deque[float] = deque(maxlen=_RECENT)
        if earlier is not None:
            self._ratios.extend(list(earlier._ratios)[_FORGOTTEN:])
        self._scale = self._scale_now()  # of what was measured beforehand of V(n) - 1
        self._recent_t1: deque[float] = deque(maxlen=_RECENT_PLAIN)
        self._seen: dict[int, deque[float]] = {}
        self._since_plain = 0
        self.t1 = t1
        """Seconds of a one-token step now."""
        self.multiples = (ctypes.c_double * (_MOST_TOKENS + 1))(
            *(self._v(n) for n in range(_MOST_TOKENS + 1))
        )
        """V(n) now, by n."""

    @property
    def plain_due(self) -> bool:
        """Whether T1 is not known well enough: everything else is judged by it."""
        return len(self._recent_t1) < _LEAST_PLAIN or self._since_plain >= _T1_STALE

    def v(self, n: int) -> float:
        """V(n): the time of a step over n tokens, over T1."""
        return self.multiples[n] if n <= _MOST_TOKENS else self._v(n)

    def _v(self, n: int) -> float:
        prior = self._priors[n] if n <= _MOST_TOKENS else _line(self._points, n)
        prior = 1.0 + self._scale * (prior - 1.0)
        seen = self._seen.get(n)
        return median([*([prior] * _PRIOR_WEIGHT), *seen]) if seen else prior

    def step(self, n: int) -> float:
        """Seconds of a step over n tokens."""
        return self.t1 * self.v(n)

    def observe(self, n: int, seconds: float) -> None:
        """Hear what a step over n tokens took."""
        if n == 1:
            self.observe_plain((seconds,))
        else:
            self._since_plain += 1
            self._seen.setdefault(n, deque(maxlen=_RECENT)).append(seconds / self.t1)
            if n <= _MOST_TOKENS:
                self.multiples[n] = self._v(n)
                if self._priors[n] - 1.0 >= _TELLING:
                    # Like with like: T1 is less than what most one-token steps take.
                    usual = median(self._recent_t1) if self._recent_t1 else self.t1
                    self._rescale((seconds / usual - 1.0) / (self._priors[n] - 1.0))

    def observe_plain(self, seconds: Iterable[float]) -> None:
        """Hear what one-token steps took, the latest last."""
        self._recent_t1.extend(seconds)
        self._since_plain = 0
        self.t1 = sorted(self._recent_t1)[len(self._recent_t1) // 4]

    def _rescale(self, ratio: float) -> None:
        self._ratios.append(ratio)
        scale = self._scale_now()
        if abs(scale - self._scale) > _NOTICED * self._scale:
            self._scale = scale
            self.multiples[:] = [self._v(m) for m in range(_MOST_TOKENS + 1)]

    def _scale_now(self) -> float:
        return max(median([*([1.0] * _PRIOR_WEIGHT), *self._ratios]), _LEAST_SCALE)


def _line(points: Sequence[tuple[int, float]], n: int) -> float:
    """Between the two points around n, or beyond the last two."""
    right = min(max(bisect_right(points, n, key=lambda point: point[0]), 1), len(points) - 1)
    (n0, v0), (n1, v1) = points[right - 1], points[right]
    return v0 + (v1 - v0) * (n - n0) / (n1 - n0)


class AcceptanceChances:
    """The chance that the full model draws a proposed token, by who proposed it and how sure they
    were: accepted over tried within bins of the stated probability, starting from that
    probability. Of sources that are trusted, all stated probabilities together are."""

    def __init__(self) -> None:
        self._counts: dict[str, list[list[float]]] = {}
        self._trusted: dict[str, list[float]] = {}  # expected to be accepted, and accepted
        self._lines: dict[str, ctypes.Array[ctypes.c_double]] = {}

    def chance(self, source: str, probability: float) -> float:
        """Float in [0, 1]."""
        lines, bin_ = self.lines(source), _bin(probability)
        return lines[2 * bin_] + lines[2 * bin_ + 1] * probability

    def lines(self, source: str) -> ctypes.Array[ctypes.c_double]:
        """Of every bin, two numbers (a, b): the chance of a token of this source that is proposed
        with a probability p in that bin is a + b * p. Kept up to date."""
        if source not in self._lines:
            self._lines[source] = (ctypes.c_double * (2 * CHANCE_BINS))()
            self._update_all(source)
        return self._lines[source]

    def observe(self, source: str, probability: float, accepted: bool) -> None:
        """Hear whether a token that was proposed was drawn."""
        if source in self._trusted:
            _add(self._trusted[source], probability, accepted)
            self._update_all(source)
            return
        counts = self._counts.setdefault(source, [[0.0, 0.0] for _ in range(CHANCE_BINS)])
        bin_ = _bin(probability)
        _add(counts[bin_], 1.0, accepted)
        if source in self._lines:
            self._update(source, bin_)

    def trust(self, source: str) -> None:
        """From now on this source's probabilities are chances but for one factor of at most 1: it
        learns itself how often what it proposes comes true."""
        if source not in self._trusted:
            self._counts.pop(source, None)
            self._trusted[source] = [0.0, 0.0]
            self._update_all(source)

    def begin_text(self) -> None:
        """What follows is another text."""
        for source, sums in self._trusted.items():
            weight = min(1.0, _FOREIGN_EXPECTED / sums[0]) if sums[0] else 1.0
            sums[:] = [each * weight for each in sums]
            self._update_all(source)

    def counts(self, source: str) -> tuple[tuple[float, float], ...]:
        """Of each bin, how many tokens were tried and how many accepted; empty if none were."""
        return tuple((tried, accepted) for tried, accepted in self._counts.get(source, ()))

    def expect(self, source: str, counts: Sequence[tuple[float, float]]) -> None:
        """Starts from what ``counts`` gave for other texts, unless the source is known already."""
        if source in self._counts or source in self._trusted or len(counts) != CHANCE_BINS:
            return
        self._counts[source] = [
            [tried * weight, accepted * weight]
            for tried, accepted in counts
            for weight in [min(1.0, _FOREIGN / tried) if tried else 0.0]
        ]
        self._update_all(source)

    def _update_all(self, source: str) -> None:
        if source not in self._lines:
            return
        if source in self._trusted:
            expected, accepted = self._trusted[source]
            factor = (accepted + _PRIOR_EXPECTED) / (expected + _PRIOR_EXPECTED)
            self._lines[source][:] = [0.0, min(1.0, factor)] * CHANCE_BINS
            return
        for bin_ in range(CHANCE_BINS):
            self._update(source, bin_)

    def _update(self, source: str, bin_: int) -> None:
        tried, accepted = self._counts[source][bin_] if source in self._counts else (0.0, 0.0)
        weight = tried + _PRIOR_TRIALS
        self._lines[source][2 * bin_ : 2 * bin_ + 2] = [accepted / weight, _PRIOR_TRIALS / weight]

    def table(self, source: str) -> list[float]:
        """The chance in the middle of each bin, lowest first."""
        return [self.chance(source, (i + 0.5) / CHANCE_BINS) for i in range(CHANCE_BINS)]

    def state(self) -> dict[str, Any]:
        """JSON-able; ``from_state`` restores it."""
        return {
            "counts": {name: [list(c) for c in bins] for name, bins in self._counts.items()},
            "trusted": {name: list(sums) for name, sums in self._trusted.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> AcceptanceChances:
        """What ``state`` gave.

        Raises:
            BadInput: not such a state.
        """
        calibration = cls()
        try:
            for name, bins in state["counts"].items():
                counts = [[float(tried), float(accepted)] for tried, accepted in bins]
                if len(counts) != CHANCE_BINS or not all(0 <= a <= t < math.inf for t, a in counts):
                    raise ValueError(f"counts of '{name}'")
                calibration._counts[str(name)] = counts
            for name, sums in state.get("trusted", {}).items():
                expected, accepted = (float(each) for each in sums)
                if not (0 <= expected < math.inf and 0 <= accepted < math.inf):
                    raise ValueError(f"sums of '{name}'")
                calibration._trusted[str(name)] = [expected, accepted]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the saved acceptance counts cannot be used ({error}): start anew with --fresh"
            ) from error
        return calibration


def _add(sums: list[float], expected: float, accepted: bool) -> None:
    """To what was expected to be accepted and what was; older ones fade."""
    if sums[0] >= _MEMORY:
        sums[0] /= 2
        sums[1] /= 2
    sums[0] += expected
    sums[1] += accepted


class Reach:
    """How far the recent drafts of one drafter reached, position by position.

    Each position has three chances: that a draft which may go on to it does, that one whose tokens
    are all accepted does, and that such a one's token is accepted there as well. Where a position
    was reached seldom, they are those of all positions together; before there were drafts, those
    that give the numbers below.

    Args:
        drafted, accepted: tokens a draft, before there were any.
    """

    def __init__(self, drafted: float, accepted: float) -> None:
        # Drafted are 1 + g + g^2 ... = 1 / (1 - g), accepted q + q*g*q ... = q / (1 - g*q).
        self._goes_on = 1.0 - 1.0 / max(1.0, drafted)
        self._accepted = min(1.0, accepted / (1.0 + self._goes_on * accepted))
        self._drafts: deque[tuple[int, int, int]] = deque(maxlen=RECENT_DRAFTS)
        self._expected: list[tuple[float, float]] = []

    def observe(self, limit: int, drafted: int, accepted: int) -> None:
        """Hear of a draft that could have had ``limit`` tokens."""
        self._drafts.append((limit, drafted, accepted))
        self._expected.clear()

    def forget_oldest(self) -> None:
        """Of the drafts, if there are any."""
        if self._drafts:
            self._drafts.popleft()
            self._expected.clear()

    @property
    def wasted(self) -> float:
        """The chance that no token is accepted, estimated high while little is known."""
        nothing = sum(accepted == 0 for _, _, accepted in self._drafts)
        return (nothing + _PRIOR_DRAFTS * _PRIOR_WASTED) / (len(self._drafts) + _PRIOR_DRAFTS)

    def expected(self, limit: int) -> tuple[float, float]:
        """Tokens drafted and accepted of a draft of at most ``limit``, which is positive."""
        if len(self._expected) < limit:
            self._expected = self._expectations(max(limit, _POSITIONS))
        return self._expected[limit - 1]

    def _expectations(self, most: int) -> list[tuple[float, float]]:
        went_on = [_Tried() for _ in range(most)]
        went_on_right = [_Tried() for _ in range(most)]
        was_accepted = [_Tried() for _ in range(most)]
        for limit, drafted, accepted in self._drafts:
            for i in range(min(limit, drafted + 1, most)):
                went_on[i].add(i < drafted)
                if i <= accepted:
                    went_on_right[i].add(i < drafted)
                    if i < drafted:
                        was_accepted[i].add(i < accepted)
        # That there is a first token is no news.
        goes_on = (1.0, *_chances(self._goes_on, went_on[1:]))
        goes_on_right = (1.0, *_chances(self._goes_on, went_on_right[1:]))
        is_accepted = map(mul, goes_on_right, _chances(self._accepted, was_accepted))
        sums = (accumulate(accumulate(each, mul)) for each in (goes_on, is_accepted))
        return list(zip(*sums, strict=True))


@dataclass
class _Tried:
    """How often something was tried and succeeded."""

    times: int = 0
    succeeded: int = 0

    def add(self, success: bool) -> None:
        self.times += 1
        self.succeeded += success

    def share(self, prior: float) -> float:
        """Of successes; ``prior`` while there is little to go by."""
        return (prior * _PRIOR_DRAFTS + self.succeeded) / (_PRIOR_DRAFTS + self.times)


def _chances(prior: float, tried: Sequence[_Tried]) -> list[float]:
    """Of each success, starting from that of all together."""
    together = _Tried(sum(each.times for each in tried), sum(each.succeeded for each in tried))
    pooled = together.share(prior)
    return [each.share(pooled) for each in tried]


def _bin(probability: float) -> int:
    return min(int(probability * CHANCE_BINS), CHANCE_BINS - 1)
