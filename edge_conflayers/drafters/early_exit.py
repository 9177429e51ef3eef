"""LayerSkip (arXiv 2404.16710): drafts by an early exit, after the first layers.

The model's own norm and head follow the exit. Verification goes on from there
(``Session.draft_exit``), so the first layers of a drafted token run once. Models that were not
trained for early exits predict badly at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import TextSession
from edge_conflayers.errors import BadInput


@dataclass(frozen=True)
class LayerSkipSettings:
    """The method's settings.

    Raises:
        BadInput: a value is out of its range.
    """

    exit_layer: int | None = None
    """Layers that run in a draft; half of the model's if not given. Not tuned."""
    stop_threshold: float = 0.4
    """A draft stops at the token whose top-1 probability is under this. Not tuned."""
    max_draft: int = 6
    """Most tokens drafted in a round. Not tuned."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.stop_threshold <= 1.0 and self.max_draft >= 1):
            raise BadInput(
                f"{self} makes no sense: give a threshold from 0 to 1 and a length of at least 1"
            )

    def exit_of(self, n_layer: int) -> int:
        """The exit layer in a model of n_layer layers.

        Raises:
            BadInput: the model has no such exit.
        """
        layer = n_layer // 2 if self.exit_layer is None else self.exit_layer
        if not 0 < layer < n_layer:
            raise BadInput(
                f"there is no exit after {layer} of {n_layer} layers: give one from 1 to"
                f" {n_layer - 1}, or use --method plain"
            )
        return layer


class LayerSkipDrafter:
    """Drafts by one fixed exit.

    Args:
        n_layer: the model's layers.

    Raises:
        BadInput: the model has no such exit.
    """

    def __init__(self, n_layer: int, settings: LayerSkipSettings | None = None) -> None:
        self.settings = settings or LayerSkipSettings()
        self.exit_layer = self.settings.exit_of(n_layer)

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Drafter.begin``; nothing to prepare."""

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        return session.draft_exit(
            self.exit_layer,
            pending,
            limit=min(limit, self.settings.max_draft),
            stop_probability=self.settings.stop_threshold,
        )

    def learn(self, session: TextSession, round: Round) -> None:
        pass

    def report(self) -> dict[str, Any]:
        return {"exit_layer": self.exit_layer}
