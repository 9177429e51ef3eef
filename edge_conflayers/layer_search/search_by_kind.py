"""The measured search, text after text: each starts with the set found for its kind of prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_conflayers.costs.model import CostsAtContext
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.layer_search.measured import Found, MeasuredSettings
from edge_conflayers.layer_search.online_measured import OnlineMeasuredSearch
from edge_conflayers.layer_search.prompt_kinds import SAME_KIND, Signature, signature, similarity
from edge_conflayers.layer_search.skip_sets import SkipSet, SkipSets

_TAIL = 2048  # last tokens of a prompt, whose signature is its kind; not tuned


class SearchByKind:
    """A ``SkipSetSearch`` that goes on from text to text; ``begin`` is called for every text.

    Args:
        sets: the skip sets found before, kept up to date.
        costs: of steps; set to the context of each text.

    Raises:
        BadInput: the model has too few layers.
    """

    def __init__(
        self, sets: SkipSets, costs: CostsAtContext, settings: MeasuredSettings | None = None
    ) -> None:
        self.sets = sets
        self.kind = ""
        self._costs = costs
        self._search = OnlineMeasuredSearch(sets.n_layer, costs, settings)
        if sets.orders is not None:
            self._search.set_orders(sets.orders)
        self._signature: Signature | None = None
        self._nearest: SkipSet | None = None
        self._judged = False  # whether a set was judged for this kind

    @property
    def found(self) -> Found | None:
        """The best set for this text so far, whether or not it is faster than plain decoding."""
        return self._search.found

    @property
    def mask(self) -> LayerMask:
        return self._search.mask

    @property
    def finished(self) -> bool:
        return self._search.finished

    def begin(self, session: TextSession) -> None:
        """Starts a text whose prompt the session holds. What it learns is kept under the nearest
        kind if that is near enough, else as a kind of its own."""
        seen = signature(session.model.text(session.tokens[-_TAIL:]))
        nearest = self._nearest = self.sets.nearest(seen)
        if nearest is not None and similarity(nearest.signature, seen) >= SAME_KIND:
            self.kind, self._signature = nearest.kind, nearest.signature
            self._search.begin_text(nearest.found, nearest.memory)
            self._judged = True
        else:
            self.kind, self._signature = self.sets.unused_name(), seen
            if nearest is None:
                self._search.begin_text()
            else:
                self._search.begin_text(nearest.found, credit=nearest.memory.credit)
            self._judged = False
        self._costs.context = len(session)

    def observe(self, round: Round) -> None:
        self._search.observe(round)

    def advance(self, session: TextSession) -> None:
        judged = self._search.judged
        self._search.advance(session)
        self.sets.orders = self._search.orders
        if self._search.judged > judged:
            self._judged = True
            self.keep()

    def keep(self) -> None:
        """Brings ``sets`` up to date.

        A set that another kind lent, and that was not judged for this one, is not kept for this
        kind: copies that nobody judged would push out tuned sets. The time that the text saved up
        for judging then goes to the lender.
        """
        self.sets.orders = self._search.orders
        memory = self._search.memory()
        if self._judged and self.found is not None and self._signature is not None:
            self.sets.keep(SkipSet(self.kind, self._signature, self.found, memory))
        elif self._nearest is not None:
            lent = replace(self._nearest.memory, credit=memory.credit)
            self.sets.keep(replace(self._nearest, memory=lent))

    def state(self) -> dict[str, Any]:
        """All skip sets, JSON-able; ``SkipSets.from_json`` restores them."""
        self.keep()
        return self.sets.to_json()
