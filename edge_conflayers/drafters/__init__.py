"""Who proposes tokens for the full model to check. The loop knows only `Drafter`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edge_conflayers.draft import Draft, Round
from edge_conflayers.session import Session


class Drafter(Protocol):
    """Proposes tokens and learns from what becomes of them."""

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        """Called once the session has read a prompt, before the first round. May measure and
        prepare; leaves the session as it is."""
        ...

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        """Proposes at most ``limit`` tokens to follow ``pending``, the end of the text, which is
        not in the session's cache yet. Leaves the session as it is. An empty draft means: decode
        plainly."""
        ...

    def learn(self, session: Session, round: Round) -> None:
        """Called after each round, outside the draft and verify times. The session holds the text
        so far, less what will be pending in the next round."""
        ...

    def report(self) -> dict[str, Any]:
        """What to tell the user about it: JSON-able."""
        ...


class CandidateSource(Protocol):
    """Proposes tokens from what it has seen, without a step of any model.

    Before each draft ``observe``, then ``candidates`` if wanted; after each round ``learn``,
    whoever drafted it. Where time is short, rounds may go by without these calls.
    """

    @property
    def name(self) -> str:
        """The ``source`` of its drafted tokens."""
        ...

    @property
    def weighed_seconds(self) -> float:
        """Of its time in this round, what it has weighed itself against what it brings."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether it learns itself how often its candidates come true, place by place, so that
        their probabilities are chances of acceptance but for a factor."""
        ...

    @property
    def learns_always(self) -> bool:
        """Whether ``learn`` is to be called after every round."""
        ...

    def observe(self, session: Session, pending: Sequence[int]) -> None:
        """Takes in the text up to now: the session's and ``pending`` after it. Usually it goes on
        from the text observed last, but it may be another."""
        ...

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        """The likeliest tokens to follow the text, as a tree.

        Args:
            limit: most tokens.
            least: probability under which a token, with all before it, is left out.
            chain: at most one successor for each token.

        Returns:
            A token's likeliest child comes right after it.
        """
        ...

    def learn(self, session: Session, round: Round) -> None:
        """As ``Drafter.learn``."""
        ...


@runtime_checkable
class FollowingSource(CandidateSource, Protocol):
    """Goes on with a text in a microsecond or two, so that it can be asked even where time is too
    short for the rest of a round's decisions."""

    @property
    def handle(self) -> Any:
        """The library's lookup, which can follow the text without Python."""
        ...

    def follow(self, token: int) -> float:
        """Takes in one token, which comes right after what was observed or followed last.

        Returns:
            The probability of the likeliest candidate to follow it; 0 if there is none.
        """
        ...

    def followed(self, tokens: Sequence[int]) -> None:
        """Hears of tokens that the library's lookup has taken in."""
        ...


@dataclass(frozen=True)
class Pause:
    """Rounds that a drafter lets go by. They are decoded plainly, several in one call.

    Attributes:
        rounds: at most.
        following: take in the text meanwhile; as soon as one has something, the pause is over.
        expected: how likely the next token has to be for that.
    """

    rounds: int
    following: Sequence[FollowingSource] = ()
    expected: float = 1.0


@runtime_checkable
class PausingDrafter(Drafter, Protocol):
    """A drafter that need not be asked in every round."""

    def pause(self) -> Pause | None:
        """Asked before each round; if it pauses, ``draft`` and ``learn`` are not called."""
        ...

    def passed(self, session: Session, rounds: Sequence[Round], called: bool) -> None:
        """Called after rounds of a pause, with whether a source has ended it. The session's logits
        are those of the last one."""
        ...
