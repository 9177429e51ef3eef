"""Drafts with the skip set found for the text's kind of prompt, under its stop rule."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.drafters.layers import LayersDrafter
from edge_conflayers.engine.session import TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.search_by_kind import SearchByKind


class MeasuredDrafter(LayersDrafter):
    """Drafts under the best skip set for the text, if it is predicted to be faster than plain
    decoding.

    Args:
        search: finds the skip set.
        vocabulary: the draft vocabulary; None for all tokens.
    """

    search: SearchByKind

    def __init__(self, search: SearchByKind, vocabulary: DraftVocabulary | None = None) -> None:
        super().__init__(search, stop_probability=0.0, max_draft=0)
        self.vocabulary = vocabulary

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        self.search.begin(session)
        self._follow_search()
        if self.search.mask and self.vocabulary is not None:
            with contextlib.suppress(BadInput):  # no memory, or an LM head not served
                self.vocabulary.begin(session, prompt)

    def learn(self, session: TextSession, round: Round) -> None:
        super().learn(session, round)
        self._follow_search()
        if session.draft_vocabulary and self.vocabulary is not None:
            with contextlib.suppress(BadInput):
                self.vocabulary.observe(session, round.drawn)

    def report(self) -> dict[str, Any]:
        found = self.search.found
        return {
            **super().report(),
            "kind": self.search.kind,
            "predicted_speedup": None if found is None else found.prediction.speed,
            "stop_probability": self.stop_probability,
            "max_draft": self.max_draft,
        }

    def _follow_search(self) -> None:
        found = self.search.found
        if found is not None:
            self.stop_probability = found.prediction.stop_probability
            self.max_draft = found.prediction.max_draft
