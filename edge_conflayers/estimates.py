"""What the controller believes, and how rounds change it: step times and chances of acceptance."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from edge_conflayers.errors import BadInput

_RECENT = 9
_PRIOR_WEIGHT = 3
_T1_STALE = 32  # steps since the last one-token step
_LEAST_PLAIN = 2
_BINS = 8
_PRIOR_TRIALS = 4.0
_MEMORY = 256.0  # trials after which older ones fade


class StepTimes:
    """Seconds of a full step over n tokens, as it changes with the context and the machine.

    T1 is the median of recent one-token steps. V(n) = T1's multiple is the median of recent steps
    over n tokens together with what was measured beforehand.

    Args:
        t1: seconds of a one-token step, measured beforehand; of use until there was one.
        v: V(n) for some n > 1, measured beforehand; between them it is linear.

    Raises:
        BadInput: times that are not positive, or no V.
    """

    def __init__(self, t1: float, v: Mapping[int, float]) -> None:
        if not v or not all(math.isfinite(x) and x > 0 for x in (t1, *v.values())):
            raise BadInput("the measured step times are not positive numbers; measure them again")
        self._points = sorted({1: 1.0, **v}.items())
        self._measured_t1 = t1
        self._t1: deque[float] = deque(maxlen=_RECENT)
        self._v: dict[int, deque[float]] = {}
        self._since_plain = 0

    @property
    def t1(self) -> float:
        """Seconds of a one-token step now."""
        return median(self._t1) if self._t1 else self._measured_t1

    @property
    def plain_due(self) -> bool:
        """Whether T1 is not known well enough: everything else is judged by it."""
        return len(self._t1) < _LEAST_PLAIN or self._since_plain >= _T1_STALE

    def v(self, n: int) -> float:
        """V(n): the time of a step over n tokens, over T1."""
        prior = self._prior(n)
        seen = self._v.get(n)
        return median([*([prior] * _PRIOR_WEIGHT), *seen]) if seen else prior

    def step(self, n: int) -> float:
        """Seconds of a step over n tokens."""
        return self.t1 * self.v(n)

    def observe(self, n: int, seconds: float) -> None:
        """Hear what a step over n tokens took."""
        if n == 1:
            self._t1.append(seconds)
            self._since_plain = 0
        else:
            self._since_plain += 1
            self._v.setdefault(n, deque(maxlen=_RECENT)).append(seconds / self.t1)

    def _prior(self, n: int) -> float:
        sizes = [size for size, _ in self._points]
        right = min(max(bisect_right(sizes, n), 1), len(sizes) - 1)
        (n0, v0), (n1, v1) = self._points[right - 1], self._points[right]
        return v0 + (v1 - v0) * (n - n0) / (n1 - n0)


class AcceptanceChances:
    """The chance that the full model draws a proposed token, by who proposed it and how sure they
    were: accepted over tried within bins of the stated probability, starting from that
    probability."""

    def __init__(self) -> None:
        self._counts: dict[str, list[list[float]]] = {}

    def chance(self, source: str, probability: float) -> float:
        """Float in [0, 1]."""
        bin_ = _bin(probability)
        tried, accepted = self._counts[source][bin_] if source in self._counts else (0.0, 0.0)
        return (accepted + _PRIOR_TRIALS * probability) / (tried + _PRIOR_TRIALS)

    def observe(self, source: str, probability: float, accepted: bool) -> None:
        """Hear whether a token that was proposed was drawn."""
        counts = self._counts.setdefault(source, [[0.0, 0.0] for _ in range(_BINS)])
        cell = counts[_bin(probability)]
        if cell[0] >= _MEMORY:
            cell[0] /= 2
            cell[1] /= 2
        cell[0] += 1
        cell[1] += accepted

    def table(self, source: str) -> list[float]:
        """The chance in the middle of each bin, lowest first."""
        return [self.chance(source, (i + 0.5) / _BINS) for i in range(_BINS)]

    def state(self) -> dict[str, Any]:
        """JSON-able; ``from_state`` restores it."""
        return {"counts": {name: [list(c) for c in bins] for name, bins in self._counts.items()}}

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
                if len(counts) != _BINS or not all(0 <= a <= t < math.inf for t, a in counts):
                    raise ValueError(f"counts of '{name}'")
                calibration._counts[str(name)] = counts
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the saved acceptance counts cannot be used ({error}): start anew with --fresh"
            ) from error
        return calibration


def _bin(probability: float) -> int:
    return min(int(probability * _BINS), _BINS - 1)
