"""The chance that the full model draws a proposed token."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_conflayers.errors import BadInput

CHANCE_BINS = 8
_PRIOR_TRIALS = 4.0
_MEMORY = 256.0  # trials after which older ones fade
_FOREIGN = 24.0  # trials that those of other texts count for, at most
# Of trusted sources, in tokens that were expected to be accepted. Texts differ: what was learned of
# others counts for little, so that one in which proposals fail is soon known.
_PRIOR_EXPECTED = 2.0
_FOREIGN_EXPECTED = 12.0


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


def _bin(probability: float) -> int:
    return min(int(probability * CHANCE_BINS), CHANCE_BINS - 1)
