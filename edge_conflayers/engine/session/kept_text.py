"""What sessions keep of a text for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_conflayers.engine.session.saved_text import SavedText


class KeepsText(Protocol):
    """A session whose text, or a beginning of it, can be gone on from."""

    def held_prefix(self, prompt: Sequence[int], *, exact: bool = True) -> int:
        """How much of a prompt ``keep_prefix`` would keep."""
        ...

    def keep_prefix(self, prompt: Sequence[int], *, exact: bool = True) -> int:
        """Rolls back to the longest beginning of a prompt that the session holds; ``read`` goes on
        from there.

        Args:
            exact: only what has the very bits that reading the prompt anew would give: whole
                batches of it. Else also what was written or read in smaller steps, which differs
                from that by rounding.

        Returns:
            Its length, less than the prompt's: the logits after the prompt are still to come.
        """
        ...

    def saved(self) -> SavedText:
        """The text, to be put back later."""
        ...

    def restore(self, saved: SavedText) -> None:
        """Puts a text back, as far as the next prompt can use it.

        Raises:
            BadInput: it is another model's or another context's.
        """
        ...
