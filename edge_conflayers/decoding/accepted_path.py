"""The accepted path through a draft, and what of it stays in the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.session import TextSession


class AcceptedPath:
    """Follows the drawn tokens through a draft; made before the draft is verified.

    Cells of the draft's first chain are those that plain decoding would have written. A branch off
    it loses its cells, and its tokens are verified once more with the next draft.

    Attributes:
        nodes: indices of the accepted tokens in the draft.
    """

    def __init__(self, session: TextSession, pending: Sequence[int], draft: Draft) -> None:
        self.nodes: list[int] = []
        self._session = session
        self._draft = draft
        self._pending = tuple(pending)
        self._begin = len(session) + len(pending)  # position of the draft's first token
        self._in_chain = 0  # accepted tokens of the first chain
        self._token = pending[-1]  # drawn last
        self._ended = False  # whether that is the full model's own, which ends the path

    @property
    def output(self) -> int:
        """Index of the step's logits that the next token is drawn from."""
        return len(self._pending) + (self.nodes[-1] if self.nodes else ROOT)

    def accepts(self, token: int) -> bool:
        """Goes on to a drawn token, if it was drafted."""
        self._token = token
        child = self._draft.child(self.nodes[-1] if self.nodes else ROOT, token)
        if child is None:
            self._ended = True
            return False
        self._in_chain += child == self._in_chain
        self.nodes.append(child)
        return True

    def settle(self) -> list[int]:
        """Rolls the session back to the text's cells that may stay, less its last token.

        Returns:
            The end of the text, which is not in the cache.
        """
        if len(self._session) < self._begin:
            return list(self._pending)  # it was not verified
        known = len(self.nodes) if self._ended else len(self.nodes) - 1
        if known < 0:  # nothing was drawn
            self._session.rollback(self._begin - 1)
            return [self._token]
        kept = min(self._in_chain, known)
        self._session.rollback(self._begin + kept)
        return [*(self._draft.tokens[i] for i in self.nodes[kept:known]), self._token]
