"""Polling: when the sources are asked for candidates, and when rounds go by without.

Deciding what to draft takes some 100 us of Python, right after a step has emptied the caches: 4 %
of SmolLM2's step. Where that is noticed, the loop decodes plainly for a while. Lookups follow the
text in the library meanwhile, at 2 us a token, and wake the drafter up when they have something.
Where polls have been in vain all the same, or where others have to be asked too, nobody watches.

Python decides although the library, asked before every step, had as many tokens accepted in 0.2 to
0.8 % less time: 24 Spec-Bench texts of SmolLM2-135M, simulated steps of 7.5 ms, polls of 27 to
108 us (Xeon at 2.5 GHz, 2026-11-28). Decisions in no time at all would bring 0.4 to 1.2 %; at 25 ms
a step the library brings 0.1 to 0.3 %, at 2.5 ms (polls of 81 us) 2.5 %. It would need some 700
lines more (estimated), and still polling: for layers, a second model and the next-state head.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from edge_conflayers.decoding.drafter import BackOff
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.lookup import LookupSource

# One-token steps that polling may take a round. With lookups that watch and this (0.005 before),
# polling took 1.4 to 1.6 % of SmolLM2's texts without drafts, 3 % before (2026-11-25).
_NOTICEABLE = 0.0025
# Fruitless polls, in one-token steps, after which we back off: SmolLM2's slowest text 0.972 to
# 0.980 (62 recorded texts, 2026-11-25).
_FRUITLESS = 0.25
_LONGEST_SLEEP = 16  # rounds of backing off; not tuned
_LONGEST_WATCH = 48  # rounds of watching; not tuned
_NEWEST = 0.2  # the last poll's weight in the running mean of their seconds; not tuned


class Polling:
    """Decides after each poll how many rounds go by before the next.

    Attributes:
        usual_seconds: running mean of what a poll takes.
        followed: whether the lookups have followed the text up to now.
    """

    def __init__(self, lookups: Sequence[LookupSource] = ()) -> None:
        self.begin_text(lookups)

    def begin_text(self, lookups: Sequence[LookupSource]) -> None:
        """Starts another text.

        Args:
            lookups: sources that can watch the text.
        """
        self._lookups = lookups
        self._handles = [lookup.handle for lookup in lookups]
        self.usual_seconds = 0.0
        self._polls = 0
        self._skips = 0  # rounds that will go by without a poll
        self._watching = False
        self._wake_at = 1.0
        self._woken = False  # whether a lookup has asked for the poll to come
        self._fruitless = 0.0  # seconds of polls since a token was accepted
        self.followed = False

    @property
    def due(self) -> bool:
        """Whether this round polls."""
        return self._skips == 0

    def back_off(self) -> BackOff | None:
        """The rounds that go by before the next poll; None if it is due."""
        if self.due:
            return None
        if not self._watching:
            return BackOff(self._skips)
        return BackOff(self._skips, self._handles, self._wake_at)

    def skipped(self, rounds: Sequence[Round], woken: bool) -> None:
        """Takes in rounds that went by, and whether a lookup has ended that."""
        self._skips -= len(rounds)
        if self._watching:
            tokens = [round.token for round in rounds]
            for lookup in self._lookups:
                lookup.followed(tokens)
        if woken:
            self._skips, self._woken = 0, True

    def polled(
        self, round: Round, seconds: float, t1: float, *, may_draft: bool, wake_at: float | None
    ) -> None:
        """Takes in a round with a poll.

        Args:
            seconds: what deciding and learning took.
            t1: seconds of a one-token step.
            may_draft: whether any time may be lost on drafts.
            wake_at: probability from which on a lookup's candidate may pay; None if others than
                lookups have to be asked.
        """
        self._polls += 1
        self.usual_seconds += max(_NEWEST, 1 / self._polls) * (seconds - self.usual_seconds)
        if round.path:
            self._fruitless = 0.0
        elif self._woken or not self._watching:
            self._fruitless += seconds
        self.followed = self._watching = self._woken = False
        skips = ceil(self.usual_seconds / (_NOTICEABLE * t1)) - 1
        if skips <= 0:
            return
        if not round.path and (self._fruitless >= _FRUITLESS * t1 or not may_draft):
            self._skips = min(skips, _LONGEST_SLEEP)
        elif wake_at is not None:
            self._skips, self._watching, self._wake_at = _LONGEST_WATCH, True, wake_at
            self._watch(round.drawn)
            self.followed = True

    def _watch(self, drawn: Sequence[int]) -> None:
        """Lets the lookups follow what the poll has brought; they may wake us up at once."""
        for lookup in self._lookups:
            likeliest = 0.0
            for token in drawn:
                likeliest = lookup.follow(token)
            if likeliest >= self._wake_at:
                self._skips, self._woken = 0, True
