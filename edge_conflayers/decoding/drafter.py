"""What the loop asks of whoever drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import Session


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


class Follower(Protocol):
    """A lookup of the library, which follows the text without Python."""

    @property
    def handle(self) -> Any:
        """The library's own pointer."""
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
    following: Sequence[Follower] = ()
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
