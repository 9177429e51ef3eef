"""Who proposes tokens for the full model to check. The loop knows only this protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from edge_conflayers.session import Draft, Session


@dataclass(frozen=True)
class Round:
    """What became of one draft.

    Attributes:
        drafted: tokens proposed.
        accepted: of them, the leading ones that the full model drew as well.
        generated: tokens of the text so far, this round's included.
    """

    drafted: int
    accepted: int
    generated: int


class Drafter(Protocol):
    """Proposes tokens and learns from what becomes of them."""

    def draft(self, session: Session, first: int, limit: int) -> Draft:
        """Proposes at most ``limit`` tokens to follow ``first``, which is drawn but not in the
        session's cache yet. Leaves the session as it is. An empty draft means: decode plainly."""
        ...

    def learn(self, session: Session, round: Round) -> None:
        """Called after each round, outside the draft and verify times; the session holds the text
        so far, less its last token."""
        ...

    def report(self) -> dict[str, Any]:
        """What to tell the user about it: JSON-able."""
        ...
