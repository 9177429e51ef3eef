"""How deep the next-state head is asked, and whether at all, by what asking takes and brings."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Protocol

from edge_conflayers.drafters.native_source import MAX_CANDIDATES
from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import ROOT, Draft

MAX_DEPTH = 4
"""Most levels of a tree; not tuned."""

# Whether asking pays, in one-token steps a round: a running mean that starts with some trust. 0.2
# is 2.6 steps spent on a head that is always wrong. Not tuned.
_TRUST = 0.2
_NEWEST = 0.03  # the last round's weight in running means; not tuned
_RECENT = 9  # times whose median is what asking for a level takes; not tuned
_RETRY_EVERY = 6  # rounds of which one asks while asking does not pay; not tuned
# How often the likeliest token after a proposed one that came true comes true as well: at first,
# and the least that is assumed, so that it is tried again after sure tokens. Not tuned.
_GOES_ON = 0.5
_LEAST_GOES_ON = 0.2
# Tokens that the time of a one-token step must bring if it goes into verifying, and into another
# level. Levels up to 1.571 over plain, one alone 1.437; all that ask from .2 to .3 on are within
# 0.4 % (0.5B, 3,000 positions of GSM8K and HumanEval, simulated with three costs, 2026-11-28).
_VERIFYING_PRICE = 1.5
_LEVEL_PRICE = 3.0


class StepTimes(Protocol):
    """What steps of the full model take."""

    @property
    def t1(self) -> float:
        """Seconds of a one-token step."""
        ...

    def v(self, n: int) -> float:
        """The time of a step over n tokens, in units of ``t1``."""
        ...


class Rates(Protocol):
    """Acceptance rates of proposed tokens."""

    def rate(self, source: str, probability: float) -> float:
        """The acceptance rate of tokens that a source proposes with this probability."""
        ...

    def lines(self, source: str) -> ctypes.Array[ctypes.c_double]:
        """The same as a table: for each bin of the probability p two numbers (a, b), where the rate
        is a + b * p."""
        ...


class Asking:
    """Follows what asking takes and what its answers would have won, verified or not.

    Args:
        name: source of the answers' tokens.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._wins = _TRUST
        self._goes_on = _GOES_ON
        self._times: StepTimes | None = None
        self._rates: Rates | None = None
        self._slept = 0
        self._seconds: deque[float] = deque(maxlen=_RECENT)  # of asking, by level
        self._options = binding.NextTreeOptions(max_depth=MAX_DEPTH, max_nodes=MAX_CANDIDATES)

    def begin_text(self, times: StepTimes, rates: Rates) -> None:
        """Starts a text; both are kept up to date by others."""
        self._times, self._rates = times, rates
        lines = rates.lines(self._name)
        self._options.chances = ctypes.cast(lines, ctypes.POINTER(ctypes.c_double))
        self._options.n_bins = len(lines) // 2

    @property
    def due(self) -> bool:
        """Whether to ask in this round: always as long as that pays, else seldom."""
        if self._wins >= 0:
            return True
        self._slept += 1
        return self._slept % _RETRY_EVERY == 0

    def options(self) -> binding.NextTreeOptions:
        """How far to ask now.

        A token is verified if its chance of acceptance, with all before it, is worth the time. One
        that has the chance P is asked about if its likeliest successor, of the chance P times how
        often such go on, is worth its verification and another level.
        """
        options, times = self._options, self._times
        assert times is not None
        verifying = _VERIFYING_PRICE * (times.v(8) - 1) / 7  # of one more token
        another = _LEVEL_PRICE * self._level_seconds / times.t1
        options.min_path = verifying / 2  # may be another source's candidate as well
        options.min_join = verifying / self._goes_on
        options.min_expand = (verifying + another) / self._goes_on
        return options

    def asked(self, seconds: float, depth: int) -> None:
        """Takes in the seconds of asking for this many levels, which take about the same each."""
        self._seconds.append(seconds / depth)

    @property
    def _level_seconds(self) -> float:
        """What asking for one level takes, but for hold-ups."""
        return median(self._seconds) if self._seconds else 0.0

    def learn(self, answer: Draft, drawn: Sequence[int]) -> None:
        """Takes in an answer, likeliest tokens first, and the tokens that followed the text."""
        assert self._times is not None
        best = answer.first(best_size(self._chances(answer), self._times))
        node, accepted = ROOT, 0
        for token in drawn:
            likeliest = next((i for i in range(len(best.tokens)) if best.parent(i) == node), None)
            if likeliest is not None and node != ROOT:
                came = best.tokens[likeliest] == token
                self._goes_on += _NEWEST * (came - self._goes_on)
                self._goes_on = max(self._goes_on, _LEAST_GOES_ON)
            child = best.child(node, token)
            if child is None:
                break
            node, accepted = child, accepted + 1
        asking = depth_of(answer) * self._level_seconds / self._times.t1
        won = accepted - (self._times.v(1 + len(best.tokens)) - 1) - asking
        self._wins += _NEWEST * (won - self._wins)

    def _chances(self, answer: Draft) -> list[float]:
        """Of each token, that it is accepted together with all before it."""
        rates = self._rates
        assert rates is not None
        chances: list[float] = []
        for i, probability in enumerate(answer.probabilities):
            before = 1.0 if answer.parent(i) == ROOT else chances[answer.parent(i)]
            chances.append(before * rates.rate(self._name, probability))
        return chances


def depth_of(tree: Draft) -> int:
    """Levels of a tree; 1 for an empty one, since the head was asked for it all the same."""
    depths: list[int] = []
    for i in range(len(tree.tokens)):
        depths.append(1 if tree.parent(i) == ROOT else depths[tree.parent(i)] + 1)
    return max(depths, default=1)


def best_size(chances: Sequence[float], times: StepTimes) -> int:
    """How many tokens are worth verifying together, if nothing else is verified.

    Args:
        chances: that each is accepted together with all before it, likeliest first.
    """
    gains = [
        total - (times.v(1 + n) - 1) for n, total in enumerate(accumulate(chances, initial=0.0))
    ]
    return max(range(len(gains)), key=gains.__getitem__)
