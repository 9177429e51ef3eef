"""Methods that draft with what a published search drops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.costs.model import StepCosts
from edge_conflayers.drafters.layers import LayersDrafter, PacedLayersDrafter
from edge_conflayers.engine.model import Model
from edge_conflayers.layer_search import SkipSetSearch
from edge_conflayers.layer_search.published.clasp import ClaspSearch, ClaspSettings
from edge_conflayers.layer_search.published.conflayers import ConfLayersSearch
from edge_conflayers.layer_search.published.conflayers_selection import ConfLayersSettings
from edge_conflayers.layer_search.published.knapspec import KnapSpecSearch, KnapSpecSettings
from edge_conflayers.layer_search.published.swift import SwiftSearch, SwiftSettings
from edge_conflayers.methods.method import MethodOptions, Simple


class _Searched(Simple):
    """What methods have in common that draft with what a search drops, and keep its state."""

    _name: str
    _settings: ConfLayersSettings | SwiftSettings | ClaspSettings | KnapSpecSettings
    _drafter_kind: type[LayersDrafter] = LayersDrafter
    drafter: LayersDrafter

    def _use(self, search: SkipSetSearch) -> None:
        self.drafter = self._drafter_kind(
            search,
            stop_probability=self._settings.stop_threshold,
            max_draft=self._settings.max_draft,
            leaf_probability=self._leaf_probability(),
        )

    def _leaf_probability(self) -> float | None:
        """As of LayersDrafter."""
        return None

    def settings(self) -> dict[str, Any]:
        return {"method": self._name, **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()


class ConfLayers(_Searched):
    """Drafts with the layers dropped that the published ConfLayers search finds (arXiv
    2604.14612)."""

    _name = "conflayers"
    _settings: ConfLayersSettings

    def __init__(
        self, model: Model, options: MethodOptions, settings: ConfLayersSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or ConfLayersSettings()
        self._use(ConfLayersSearch(model.n_layer, model.architecture, self._settings))

    def _leaf_probability(self) -> float:
        return self._settings.leaf_probability

    def resume(self, state: Mapping[str, Any]) -> None:
        model = self._model
        self._use(
            ConfLayersSearch.from_state(
                dict(state), model.n_layer, model.architecture, self._settings
            )
        )


class Swift(_Searched):
    """Drafts with the sub-layers dropped that the published SWIFT search finds (arXiv
    2410.06916)."""

    _name = "swift"
    _settings: SwiftSettings

    def __init__(
        self, model: Model, options: MethodOptions, settings: SwiftSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or SwiftSettings()
        self._use(SwiftSearch(model.n_layer, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(SwiftSearch.from_state(state, self._model.n_layer, self._settings))


class Clasp(_Searched):
    """Drafts with the layers dropped that CLaSp chooses for the text at hand (arXiv 2505.24196)."""

    _name = "clasp"
    _settings: ClaspSettings

    def __init__(
        self, model: Model, options: MethodOptions, settings: ClaspSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or ClaspSettings()
        self._use(ClaspSearch(model.n_layer, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(ClaspSearch.from_state(state, self._model.n_layer, self._settings))


class KnapSpec(_Searched):
    """Drafts with the sub-layers dropped, and for the length, that KnapSpec chooses for the text at
    hand (arXiv 2602.20217).

    Args:
        costs: what to choose by; the weights' sizes if not given.
    """

    _name = "knapspec"
    _settings: KnapSpecSettings
    _drafter_kind = PacedLayersDrafter

    def __init__(
        self,
        model: Model,
        options: MethodOptions,
        settings: KnapSpecSettings | None = None,
        costs: StepCosts | None = None,
    ) -> None:
        self._model = model
        self._settings = settings or KnapSpecSettings()
        self._costs = costs or costs_by_weights(model)
        self._use(KnapSpecSearch(model.n_layer, self._costs, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(
            KnapSpecSearch.from_state(state, self._model.n_layer, self._costs, self._settings)
        )
