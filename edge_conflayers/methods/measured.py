"""Drafts with the layers dropped that were measured to be best dropped here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.costs.measure import measure_costs, session_to_measure_in
from edge_conflayers.costs.model import CostsAtContext
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary, measure_savings, typical_size
from edge_conflayers.drafters.measured_layers import MeasuredDrafter
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.layer_search.measured import MeasuredSettings
from edge_conflayers.layer_search.search_by_kind import SearchByKind
from edge_conflayers.layer_search.skip_sets import SKIP_SETS_PROFILE, SkipSets
from edge_conflayers.methods.method import MethodOptions, Simple


class Measured(Simple):
    """Drafts with the sub-layers dropped that are predicted to be fastest on this machine, by kind
    of prompt; what it learns it shares with ``tune``."""

    drafter: MeasuredDrafter

    def __init__(
        self, model: Model, options: MethodOptions, settings: MeasuredSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or MeasuredSettings()
        self._use(SkipSets(model.n_layer))

    def prepare(self, session: Session) -> None:
        """Measures what it has not: steps, and what draft vocabularies save."""
        sets = self.drafter.search.sets
        if sets.costs is not None and sets.savings is not None:
            return
        try:
            with session_to_measure_in(self._model, session.threads) as own:
                sets.costs = sets.costs or measure_costs(own)
                own.clear()
                sets.savings = measure_savings(own, DraftVocabulary(self._model), repeat=3)
        except EdgeConflayersError:
            return  # no memory: it goes by the weights' sizes
        self._use(sets)

    def _use(self, sets: SkipSets) -> None:
        costs = sets.costs or costs_by_weights(self._model)
        vocabulary = DraftVocabulary(self._model)
        savings = sets.savings or {}
        vocabulary.size = typical_size(savings, vocabulary, costs, 0)
        at_context = CostsAtContext(costs, saved_seconds=savings.get(vocabulary.size, 0.0))
        search = SearchByKind(sets, at_context, self._settings)
        self.drafter = MeasuredDrafter(search, vocabulary)

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(SkipSets.from_json(state, self._model.n_layer))
