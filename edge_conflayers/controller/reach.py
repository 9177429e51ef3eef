"""How many tokens the recent drafts of one drafter had, and how many of them were accepted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

RECENT_DRAFTS = 24
_PRIOR_DRAFTS = 3.0
_PRIOR_WASTED = 0.6
_POSITIONS = 16


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
