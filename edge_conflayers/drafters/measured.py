"""Drafts with what was found for the text's kind of prompts, and goes on finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_conflayers.draft import Round
from edge_conflayers.drafters.layers import LayersDrafter
from edge_conflayers.kinds import SAME_KIND, Signature, SkipSet, SkipSets, signature, similarity
from edge_conflayers.search.measured import MeasuredSearch
from edge_conflayers.search.prices import AtContext
from edge_conflayers.session import Session

_TAIL = 2048  # tokens of a text that its kind is told by


class MeasuredDrafter(LayersDrafter):
    """Starts each text with the set of the nearest kind, under its own stop rule.

    Args:
        search: has judged nothing yet.
        sets: is kept up to date with what the search finds.
        prices: the search's, which are set to where each text begins.
    """

    search: MeasuredSearch

    def __init__(self, search: MeasuredSearch, sets: SkipSets, prices: AtContext) -> None:
        super().__init__(search, stop_probability=0.0, max_draft=0)
        self.sets = sets
        self._prices = prices
        if sets.orders is not None:
            search.set_orders(sets.orders)
        self._kind = ""
        self._signature: Signature | None = None

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        """Looks for the nearest kind; what is learned is kept under it if it is near enough, else
        as a kind of its own."""
        seen = signature(session.model.text(session.tokens[-_TAIL:]))
        nearest = self.sets.nearest(seen)
        same = nearest is not None and similarity(nearest.signature, seen) >= SAME_KIND
        if nearest is not None and same:
            self._kind, self._signature = nearest.kind, nearest.signature
            self.search.begin_text(nearest.found, nearest.memory)
        else:
            self._kind, self._signature = self.sets.unused_name(), seen
            self.search.begin_text(None if nearest is None else nearest.found)
        self._prices.context = len(session)
        self._follow_search()

    def learn(self, session: Session, round: Round) -> None:
        judged = self.search.judged
        super().learn(session, round)
        if self.search.judged > judged:
            self._follow_search()
            self.keep()

    def _follow_search(self) -> None:
        found = self.search.found
        if found is not None:
            self.stop_probability = found.prediction.stop_probability
            self.max_draft = found.prediction.max_draft

    def keep(self) -> None:
        """Brings ``sets`` up to date."""
        self.sets.orders = self.search.orders
        found = self.search.found
        if found is not None and self._signature is not None:
            self.sets.keep(SkipSet(self._kind, self._signature, found, self.search.memory()))

    def report(self) -> dict[str, Any]:
        found = self.search.found
        return {
            **super().report(),
            "kind": self._kind,
            "predicted_speedup": None if found is None else found.prediction.speed,
            "stop_probability": self.stop_probability,
            "max_draft": self.max_draft,
        }
