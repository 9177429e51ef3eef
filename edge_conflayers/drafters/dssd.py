"""DSSD (arXiv 2407.21082): drafts by taught exits, each token by the first that is sure of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import Session, TextSession
from edge_conflayers.engine.session.taught_exits import (
    draft_by_exits,
    exit_name,
    set_taught_exits,
)
from edge_conflayers.errors import BadInput
from edge_conflayers.exits import DEFAULT_EPSILON
from edge_conflayers.exits.taught_exits import EXIT_VOCABULARY_SIZE, TaughtExits


@dataclass(frozen=True)
class DssdSettings:
    """The method's settings.

    Raises:
        BadInput: a value is out of its range.
    """

    epsilon: float = DEFAULT_EPSILON
    """Accuracy that the exits' thresholds are calibrated for: the share of drafted tokens that are
    to be right."""
    max_draft: int = 8
    """Most tokens drafted in a round. Not tuned; the paper has no limit."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.epsilon <= 1.0 and self.max_draft >= 1):
            raise BadInput(
                f"{self} makes no sense: give an epsilon from 0 to 1 and a length of at least 1"
            )


class DssdDrafter:
    """Walks down the layers with each token until an exit is sure of what follows it.

    A token that no exit is sure of is drawn from the full model, which goes on with the layers that
    are left and so verifies the draft: nothing that the draft ran is run again.

    Args:
        model: of the sessions.
        exits: of the model.
    """

    def __init__(
        self, model: LanguageModel, exits: TaughtExits, settings: DssdSettings | None = None
    ) -> None:
        self.settings = settings or DssdSettings()
        self.exits = exits
        self.thresholds = exits.thresholds(self.settings.epsilon)
        # Exits need one, and of all tokens there is none.
        size = min(EXIT_VOCABULARY_SIZE, model.n_vocab - 1)
        self._vocabulary = DraftVocabulary(model, size=size)
        self._vocabulary.expect(exits.written)
        self._session: TextSession | None = None
        self._drafted: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Drafter.begin``.

        Raises:
            BadInput: the model cannot be served by taught exits.
        """
        if self._session is not session:
            assert isinstance(session, Session)  # of a model that shows states
            set_taught_exits(session, self.exits.layers, self.exits.norms, self.exits.weights)
            self._session = session
        self._vocabulary.begin(session, prompt)

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        assert isinstance(session, Session)
        limit = min(limit, self.settings.max_draft)
        return draft_by_exits(session, pending, thresholds=self.thresholds, limit=limit)

    def learn(self, session: TextSession, round: Round) -> None:
        """Counts the exits' tokens; the draft vocabulary follows the text."""
        sources = [round.draft.source(i) for i in range(round.drafted)]
        self._drafted.update(sources)
        self._accepted.update(sources[: round.accepted])
        self._vocabulary.observe(session, round.drawn)

    def report(self) -> dict[str, Any]:
        return {
            "epsilon": self.settings.epsilon,
            "exits": [
                {
                    "layer": layer,
                    "threshold": threshold if math.isfinite(threshold) else None,
                    "drafted": self._drafted[exit_name(layer)],
                    "accepted": self._accepted[exit_name(layer)],
                }
                for layer, threshold in zip(self.exits.layers, self.thresholds, strict=True)
            ],
        }
