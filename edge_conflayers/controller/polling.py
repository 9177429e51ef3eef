"""When candidates are looked for.

Deciding what to draft and learning from a round takes some 100 us in Python, right after a step has
emptied the caches. Where that is noticed, it is done when it may bring something: between looks the
drafter pauses, and sources that follow the text in the library end the pause when they have
something. Where looks have been in vain all the same, or where others have to be asked too, nobody
follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from edge_conflayers.decoding.drafter import Pause
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.source import FollowingSource

_NOTICEABLE = 0.0025  # of a one-token step: what looking may take a round, whatever it brings
_IN_VAIN = 0.25  # one-token steps of looking that brought nothing, after which it may take no more
_LONGEST_SLEEP = 16  # rounds
_LONGEST_WATCH = 48  # rounds
_NEWEST = 0.2  # the last look's weight in what looks usually take


class Looks:
    """Of one text.

    Args:
        following: sources that can follow the text.
    """

    def __init__(self, following: Sequence[FollowingSource]) -> None:
        self._following = following
        self.usual_seconds = 0.0
        """Of one look."""
        self._made = 0
        self.begin()

    def begin(self) -> None:
        """Another text."""
        self._skips = 0  # rounds that will go by without a look
        self._watching = False  # whether sources may end that
        self._bar = 1.0  # probability of a candidate from which on they do
        self._called = False  # whether they did
        self._in_vain = 0.0  # seconds since a token was accepted
        self.followed = False
        """Whether the sources have followed the text up to now."""

    @property
    def due(self) -> bool:
        """Whether this is a round to look for candidates."""
        return self._skips == 0

    def pause(self) -> Pause | None:
        """The rounds that may go by until then; None if this is one."""
        if self.due:
            return None
        if not self._watching:
            return Pause(self._skips)
        return Pause(self._skips, self._following, self._bar)

    def passed(self, rounds: Sequence[Round], called: bool) -> None:
        """Rounds of a pause have gone by; ``called``: a source has ended it."""
        self._skips -= len(rounds)
        if self._watching:
            tokens = [round.token for round in rounds]
            for source in self._following:
                source.followed(tokens)
        if called:
            self._skips, self._called = 0, True

    def made(
        self, round: Round, seconds: float, t1: float, *, may_draft: bool, bar: float | None
    ) -> None:
        """A round with a look.

        Args:
            seconds: what looking and learning took.
            t1: seconds of a one-token step.
            may_draft: whether any time may be lost on drafts.
            bar: probability from which on a candidate of the following sources may pay; None if
                others have to be asked.
        """
        self._made += 1
        self.usual_seconds += max(_NEWEST, 1 / self._made) * (seconds - self.usual_seconds)
        if round.path:
            self._in_vain = 0.0
        elif self._called or not self._watching:
            self._in_vain += seconds
        self.followed = self._watching = self._called = False
        skips = ceil(self.usual_seconds / (_NOTICEABLE * t1)) - 1  # until it is but noticed
        if skips <= 0:
            return
        if not round.path and (self._in_vain >= _IN_VAIN * t1 or not may_draft):
            self._skips = min(skips, _LONGEST_SLEEP)
        elif bar is not None:
            self._skips, self._watching, self._bar = _LONGEST_WATCH, True, bar
            self._watch(round.drawn)
            self.followed = True

    def _watch(self, drawn: Sequence[int]) -> None:
        """Lets the sources follow what a look has brought; they may call for another at once."""
        for source in self._following:
            likeliest = 0.0
            for token in drawn:
                likeliest = source.follow(token)
            if likeliest >= self._bar:
                self._skips, self._called = 0, True
