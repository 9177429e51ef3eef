"""What goes on before a text's first token, for ``Progress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_conflayers.cli.progress import Progress

if TYPE_CHECKING:
    from edge_conflayers.engine.session import TextSession

MEASURING = "measuring what steps cost here"
"""Once for a model and a machine."""


def loading(*models: Path) -> str:
    """That models are loaded."""
    return f"loading {', '.join(model.name for model in models)}"


class Reading:
    """Shows that steps are measured, if they never were, and then how much of a prompt is read. To
    be called before each batch of the prompt, as ``TextGenerator.generate`` does.

    Args:
        session: that reads it.
        tokens: of the prompt; 0 where ``expect`` tells them.
    """

    def __init__(self, progress: Progress, session: TextSession, tokens: int = 0) -> None:
        self._progress = progress
        self._session = session
        self._tokens = tokens
        self._is_begun = False
        progress.begin(MEASURING)

    def expect(self, tokens: int) -> None:
        """Tells how many tokens the prompt has."""
        self._tokens = tokens

    def __call__(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            self._progress.begin("reading the prompt", self._tokens, "tokens")
        self._progress.update(len(self._session))
