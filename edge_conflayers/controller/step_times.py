"""Seconds of full steps, as they change with the context and the machine."""

from __future__ import annotations

import ctypes
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

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
