"""Seconds of full-model steps, as they change with the context and the machine."""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median

from edge_conflayers.costs.interpolate import interpolate
from edge_conflayers.errors import BadInput

_RECENT = 9  # steps over n tokens whose median is V(n); not tuned
# One-token steps whose lower quartile is T1: the steps right after a large batch are up to 20 %
# slower (SmolLM2, 2026-11-23).
_RECENT_PLAIN = 16
# Recent steps that another text forgets. Forgetting none kept SmolLM2 from drafting for text after
# text when a session began in a slow phase (80 prompts, 2026-11-25).
_FORGOTTEN = 3
_PRIOR_WEIGHT = 3  # weight of the measured V(n), in steps; not tuned
_T1_STALE = 32  # steps after which a one-token step is due again; not tuned
_MIN_PLAIN = 2  # one-token steps before the first draft; starting at once brings 0.3 % (2026-11-23)
_MAX_TOKENS = 64  # of a step whose V(n) is kept up to date; more than any verification has
_MIN_EXTRA = 0.08  # V(n) - 1 from which on a step tells about other sizes; not tuned
_MIN_SCALE = 0.25  # not tuned
_SCALE_CHANGE = 0.05  # relative change of the scale that is worth recomputing V; not tuned


class StepTimes:
    """Seconds of a full-model step over n tokens.

    T1 is the lower quartile of recent one-token steps: what plain decoding alone would take. V(n),
    in units of T1, is the median of recent steps over n tokens and of what was measured before the
    text. Verification's extra cost depends on how fast memory is at the moment, which is the same
    for all n, so the measured V(n) - 1 is scaled by how it has changed for the sizes seen lately.

    Args:
        t1: seconds of a one-token step, as measured; used until there was one.
        v: V(n) for some n > 1, as measured; linear in between.

    Attributes:
        t1: seconds of a one-token step now.
        multiples: V(n) now, by n; a C array for the library.

    Raises:
        BadInput: times that are not positive, or no V.
    """

    def __init__(self, t1: float, v: Mapping[int, float]) -> None:
        self.multiples = (ctypes.c_double * (_MAX_TOKENS + 1))()
        self._ratios: deque[float] = deque(maxlen=_RECENT)
        self._recent_t1: deque[float] = deque(maxlen=_RECENT_PLAIN)
        self._seen: dict[int, deque[float]] = {}
        self.begin_text(t1, v)

    def begin_text(self, t1: float, v: Mapping[int, float]) -> None:
        """Starts another text, with measured times at its context. How the machine was lately
        counts on, the less the more texts ago.

        Raises:
            BadInput: as for the constructor.
        """
        if not v or not all(math.isfinite(x) and x > 0 for x in (t1, *v.values())):
            raise BadInput("the measured step times are not positive numbers; measure them again")
        self._points = sorted({1: 1.0, **v}.items())
        self._priors = [interpolate(self._points, n) for n in range(_MAX_TOKENS + 1)]
        for _ in range(min(_FORGOTTEN, len(self._ratios))):
            self._ratios.popleft()
        self._scale = self._current_scale()  # of the measured V(n) - 1
        self._recent_t1.clear()
        self._seen.clear()
        self._since_plain = 0
        self.t1 = t1
        self._update_all()

    @property
    def plain_due(self) -> bool:
        """Whether T1, which everything else is judged by, is not known well enough."""
        return len(self._recent_t1) < _MIN_PLAIN or self._since_plain >= _T1_STALE

    def v(self, n: int) -> float:
        """V(n): the time of a step over n tokens, in units of T1."""
        return self.multiples[n] if n <= _MAX_TOKENS else self._v(n)

    def _v(self, n: int) -> float:
        prior = self._priors[n] if n <= _MAX_TOKENS else interpolate(self._points, n)
        prior = 1.0 + self._scale * (prior - 1.0)
        seen = self._seen.get(n)
        return median([*([prior] * _PRIOR_WEIGHT), *seen]) if seen else prior

    def step(self, n: int) -> float:
        """Seconds of a step over n tokens."""
        return self.t1 * self.v(n)

    def observe(self, n: int, seconds: float) -> None:
        """Takes in the time of a step over n tokens."""
        if n == 1:
            self.observe_plain((seconds,))
            return
        self._since_plain += 1
        self._seen.setdefault(n, deque(maxlen=_RECENT)).append(seconds / self.t1)
        if n > _MAX_TOKENS:
            return
        self.multiples[n] = self._v(n)
        if self._priors[n] - 1.0 >= _MIN_EXTRA:
            # The median, not T1: like with like, since T1 is less than most one-token steps take.
            usual = median(self._recent_t1) if self._recent_t1 else self.t1
            self._rescale((seconds / usual - 1.0) / (self._priors[n] - 1.0))

    def observe_plain(self, seconds: Iterable[float]) -> None:
        """Takes in the times of one-token steps, oldest first."""
        self._recent_t1.extend(seconds)
        self._since_plain = 0
        self.t1 = sorted(self._recent_t1)[len(self._recent_t1) // 4]

    def _rescale(self, ratio: float) -> None:
        self._ratios.append(ratio)
        scale = self._current_scale()
        if abs(scale - self._scale) > _SCALE_CHANGE * self._scale:
            self._scale = scale
            self._update_all()

    def _update_all(self) -> None:
        self.multiples[:] = [self._v(n) for n in range(_MAX_TOKENS + 1)]

    def _current_scale(self) -> float:
        return max(median([*([1.0] * _PRIOR_WEIGHT), *self._ratios]), _MIN_SCALE)
