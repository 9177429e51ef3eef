"""The model drafts for itself with some of its layers dropped."""

from __future__ import annotations

from typing import Any

from edge_conflayers.drafters import Round
from edge_conflayers.search import SkipSetSearch
from edge_conflayers.session import Draft, LayerMask, Session


class LayersDrafter:
    """Drafts under the skip set that a search has found so far, and feeds that search.

    Args:
        search: proposes skip sets of whole layers and hears what became of each round.
        stop_probability: a drafted token less likely than this ends the draft.
        max_draft: most tokens in a draft.
    """

    def __init__(self, search: SkipSetSearch, *, stop_probability: float, max_draft: int) -> None:
        self.search = search
        self.stop_probability = stop_probability
        self.max_draft = max_draft

    def draft(self, session: Session, first: int, limit: int) -> Draft:
        if not self.search.skip_set:
            return Draft()
        return session.draft(
            LayerMask.layers(self.search.skip_set),
            first,
            limit=min(limit, self.max_draft),
            stop_probability=self.stop_probability,
        )

    def learn(self, session: Session, round: Round) -> None:
        self.search.observe_round(round.drafted, round.accepted, round.generated)
        window = self.search.context_window
        if not self.search.wants_probe or round.generated < window or len(session) < window:
            return
        confidences = session.probe(session.tokens[-window:])
        if confidences is not None:
            self.search.propose(*confidences)

    def report(self) -> dict[str, Any]:
        return {
            "skip_set": list(self.search.skip_set),
            "search_finished": self.search.finished,
        }
