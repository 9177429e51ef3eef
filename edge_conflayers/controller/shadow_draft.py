"""A draft that was too risky to verify, compared with the text as it goes on without it."""

from __future__ import annotations

from edge_conflayers.engine.draft import ROOT, Draft

# One-token steps that a shadow must have won to count before its end. With this and step times
# kept from text to text, Gemma went from 2.3 to 2.7 over plain (40 texts, 2026-11-25).
_CONVINCING = 2.0


class ShadowDraft:
    """Follows the text through a draft that was not verified, to learn what it would have won.

    Args:
        seconds: what verifying it would have taken.

    Attributes:
        path: indices of the tokens that would have been accepted so far.
    """

    def __init__(self, draft: Draft, seconds: float) -> None:
        self.draft = draft
        self._seconds = seconds
        self.path: list[int] = []
        self._ended = False

    def follow(self, token: int) -> None:
        """Takes in the next token of the text."""
        child = self.draft.child(self.path[-1] if self.path else ROOT, token)
        if child is None:
            self._ended = True
        else:
            self.path.append(child)

    @property
    def tried(self) -> list[int]:
        """The nodes after which it is known what the full model drew."""
        nodes = [ROOT, *self.path]
        return nodes if self._ended else nodes[:-1]

    def is_decided(self, t1: float) -> bool:
        """Whether it is known well enough how good the draft was."""
        return self._ended or self.won(t1) >= _CONVINCING * t1

    def won(self, t1: float) -> float:
        """Seconds that it would have won over plain decoding so far."""
        return (len(self.path) + 1) * t1 - self._seconds
