"""What the loop asks of a drafter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import TextSession


class Drafter(Protocol):
    """Proposes tokens and learns from what becomes of them."""

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """Called once the session has read a prompt, before the first round. May measure and
        prepare; leaves the session as it is."""
        ...

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        """Proposes at most ``limit`` tokens to follow ``pending``, the end of the text, which is
        not in the session's cache yet. Leaves the session as it is. An empty draft means: decode
        plainly."""
        ...

    def learn(self, session: TextSession, round: Round) -> None:
        """Called after each round, outside the draft and verify times. The session holds the text
        so far, less what will be pending in the next round."""
        ...

    def report(self) -> dict[str, Any]:
        """What to tell the user about it: JSON-able."""
        ...


@dataclass(frozen=True)
class BackOff:
    """Rounds in which a drafter is not asked. They are decoded plainly, several in one call.

    Attributes:
        rounds: at most so many.
        watch: handles of the library's lookups, which follow the text meanwhile; the first that
            has something ends the back-off.
        wake_at: probability of a lookup's next token from which on it does.
    """

    rounds: int
    watch: Sequence[Any] = ()
    wake_at: float = 1.0


@runtime_checkable
class PollingDrafter(Drafter, Protocol):
    """A drafter that need not be asked in every round."""

    def back_off(self) -> BackOff | None:
        """Called before each round. If rounds go by, ``draft`` and ``learn`` are not called."""
        ...

    def skipped(self, session: TextSession, rounds: Sequence[Round], woken: bool) -> None:
        """Called after rounds that went by, with whether a lookup has ended the back-off. The
        session's logits are those of the last one."""
        ...
