"""Who proposes tokens for the full model to check. The loop knows only this protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

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
    """Knows the text and proposes at no cost; the controller merges what several propose."""

    @property
    def name(self) -> str:
        """The source of its candidates."""
        ...

    def observe(self, session: Session, pending: Sequence[int]) -> None:
        """Takes in the text, ``[*session.tokens, *pending]``: what is new since the last call, or
        all of it if it is another text."""
        ...

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        """A tree of at most ``limit`` tokens to follow the text, with ``sources``.

        Args:
            least: stated probability of its whole path under which a token may be left out.
            chain: no siblings.
        """
        ...

    def learn(self, session: Session, round: Round) -> None:
        """As a drafter's ``learn``."""
        ...
