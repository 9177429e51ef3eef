"""How often what a drafter proposes comes true, learned as it goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Evidence that weighs more than this many observations is halved, so that what comes later counts.
_MOST_EVIDENCE = 512.0


class Calibration:
    """A frequency for each of a fixed number of bins.

    Args:
        prior: expected frequency of each bin, in (0, 1).
        weight: how many observations the prior counts as.
    """

    def __init__(self, prior: Sequence[float], weight: float) -> None:
        self._hits = [p * weight for p in prior]
        self._seen = [weight] * len(self._hits)

    def probability(self, index: int) -> float:
        """The frequency of a bin, in (0, 1)."""
        return self._hits[index] / self._seen[index]

    def observe(self, index: int, hit: bool) -> None:
        """Something of this bin came true, or did not."""
        self._hits[index] += hit
        self._seen[index] += 1.0
        if self._seen[index] > _MOST_EVIDENCE:
            self._hits[index] /= 2
            self._seen[index] /= 2

    def state(self) -> dict[str, list[float]]:
        """Everything observed, JSON-able."""
        return {"hits": list(self._hits), "seen": list(self._seen)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from a ``state``.

        Raises:
            KeyError, TypeError, ValueError: it is not a state of as many bins.
        """
        hits, seen = ([float(n) for n in state[name]] for name in ("hits", "seen"))
        if len(hits) != len(self._hits) or len(seen) != len(hits):
            raise ValueError("the frequencies are of other bins")
        if not all(0 < h < s and math.isfinite(s) for h, s in zip(hits, seen, strict=True)):
            raise ValueError("the frequencies are not between 0 and 1")
        self._hits, self._seen = hits, seen
