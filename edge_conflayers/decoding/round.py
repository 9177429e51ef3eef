"""One round: a draft, its verification, and what was drawn."""

from __future__ import annotations

from dataclasses import dataclass

from edge_conflayers.engine.draft import Draft


@dataclass(frozen=True)
class Round:
    """One round of drafting and verifying.

    While a drafter learns from a round, ``session.logits(i)`` and the like are those after
    ``[*pending, *draft.tokens][i]``.

    Attributes:
        pending: the end of the text, at least one token, which was verified together with the
            draft: the token drawn last, preceded by those of a branch whose cells could not stay.
        draft: what was proposed to follow.
        path: indices into ``draft.tokens`` of the accepted tokens, in the order of the text.
        token: what the full model drew after the accepted ones.
        generated: tokens of the text so far, ``token`` included.
        draft_seconds, verify_seconds: wall time.
    """

    pending: tuple[int, ...]
    draft: Draft
    path: tuple[int, ...]
    token: int
    generated: int
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0

    @property
    def drafted(self) -> int:
        return len(self.draft.tokens)

    @property
    def accepted(self) -> int:
        return len(self.path)

    @property
    def drawn(self) -> tuple[int, ...]:
        """The tokens that the round added to the text."""
        return (*(self.draft.tokens[i] for i in self.path), self.token)
