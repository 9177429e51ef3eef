"""A choice among the drafters that pay, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.controller.auto import AutoDrafter
from edge_conflayers.costs.measure import measure_costs, session_to_measure_in
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.layer_search.skip_sets import SKIP_SETS_PROFILE, SkipSets
from edge_conflayers.methods.draft_model import required_draft_model
from edge_conflayers.methods.method import MethodOptions, Simple

AUTO_DRAFT_MODEL = "auto-draft-model"


class Auto(Simple):
    """Chooses each round among lookups, recycled tokens, foreseen ones, dropped layers and plain
    decoding, by expected tokens per second; what it learns of skip sets it shares with ``tune``."""

    _NAME = "auto"

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self._model = model
        self._draft_model: Model | None = None
        self._next_state = options.next_state
        self._sets = SkipSets(model.n_layer)
        self._drafter: AutoDrafter | None = None

    @property
    def drafter(self) -> AutoDrafter | None:
        """None, for plain decoding, before ``prepare``, and for models that cannot take steps back
        or be measured."""
        return self._drafter

    def prepare(self, session: Session) -> None:
        if self._drafter is None:
            try:
                with session_to_measure_in(self._model, session.threads) as own:
                    self._sets.costs = measure_costs(own)
            except EdgeConflayersError:
                return  # a recurrent model, or no memory
            self._drafter = self._make_drafter(self._sets)
        self._drafter.prepare(session)

    def close(self) -> None:
        if self._drafter is not None:
            self._drafter.close()

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        if self._drafter is not None:
            self._sets.others[self._NAME] = self._drafter.state()
        return self._sets.to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        sets = SkipSets.from_json(state, self._model.n_layer)
        drafter = self._make_drafter(sets) if sets.costs is not None else None
        if drafter is not None and self._NAME in sets.others:
            drafter.resume(sets.others[self._NAME])
        self._sets, self._drafter = sets, drafter

    def _make_drafter(self, sets: SkipSets) -> AutoDrafter:
        return AutoDrafter(
            self._model, sets, draft_model=self._draft_model, next_state=self._next_state
        )


class AutoDraftModel(Auto):
    """The same with a second model among the drafters."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        super().__init__(model, options)
        self._draft_model = required_draft_model(AUTO_DRAFT_MODEL, model, options)
