"""The methods that a user can name, and how each one's drafter is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from edge_conflayers.drafters import Drafter
from edge_conflayers.drafters.early_exit import (
    DelDrafter,
    DelSettings,
    LayerSkipDrafter,
    LayerSkipSettings,
)
from edge_conflayers.drafters.layers import LayersDrafter, PacedLayersDrafter
from edge_conflayers.errors import BadInput
from edge_conflayers.model import Model
from edge_conflayers.search.clasp import ClaspSearch, ClaspSettings
from edge_conflayers.search.conflayers import ConfLayersSearch, ConfLayersSettings
from edge_conflayers.search.expected import LayerCosts, costs_by_weights
from edge_conflayers.search.knapspec import KnapSpecSearch, KnapSpecSettings


class Method(Protocol):
    """A drafter together with what it has learned."""

    @property
    def drafter(self) -> Drafter | None: ...

    def settings(self) -> dict[str, Any]:
        """What distinguishes its profile from others': JSON-able."""
        ...

    def state(self) -> dict[str, Any] | None:
        """What it has learned so far, to be kept in a profile: JSON-able; None for nothing."""
        ...

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            BadInput: not a state of this method and model.
        """
        ...


class Plain:
    """Plain decoding: one step of the full model for each token."""

    drafter = None

    def __init__(self, model: Model) -> None:
        pass

    def settings(self) -> dict[str, Any]:
        return {}

    def state(self) -> None:
        return None

    def resume(self, state: Mapping[str, Any]) -> None:
        pass


class ConfLayers:
    """Drafts with the layers dropped that the published ConfLayers search finds (arXiv
    2604.14612)."""

    drafter: LayersDrafter

    def __init__(self, model: Model, settings: ConfLayersSettings | None = None) -> None:
        self._model = model
        self._settings = settings or ConfLayersSettings()
        self._search = ConfLayersSearch(model.n_layer, model.architecture, self._settings)
        self._make_drafter()

    def _make_drafter(self) -> None:
        self.drafter = LayersDrafter(
            self._search,
            stop_probability=self._settings.stop_threshold,
            max_draft=self._settings.max_draft,
        )

    def settings(self) -> dict[str, Any]:
        return {"method": "conflayers", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self._search.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._search = ConfLayersSearch.from_state(
            dict(state), self._model.n_layer, self._model.architecture, self._settings
        )
        self._make_drafter()


class Clasp:
    """Drafts with the layers dropped that CLaSp chooses for the text at hand (arXiv 2505.24196)."""

    drafter: LayersDrafter

    def __init__(self, model: Model, settings: ClaspSettings | None = None) -> None:
        self._model = model
        self._settings = settings or ClaspSettings()
        self._use(ClaspSearch(model.n_layer, self._settings))

    def _use(self, search: ClaspSearch) -> None:
        self.drafter = LayersDrafter(
            search,
            stop_probability=self._settings.stop_threshold,
            max_draft=self._settings.max_draft,
        )

    def settings(self) -> dict[str, Any]:
        return {"method": "clasp", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(ClaspSearch.from_state(state, self._model.n_layer, self._settings))


class KnapSpec:
    """Drafts with the sub-layers dropped, and for the length, that KnapSpec chooses for the text at
    hand (arXiv 2602.20217).

    Args:
        costs: what to choose by; the weights' sizes if not given.
    """

    drafter: PacedLayersDrafter

    def __init__(
        self,
        model: Model,
        settings: KnapSpecSettings | None = None,
        costs: LayerCosts | None = None,
    ) -> None:
        self._model = model
        self._settings = settings or KnapSpecSettings()
        self._costs = costs or costs_by_weights(model)
        self._use(KnapSpecSearch(model.n_layer, self._costs, self._settings))

    def _use(self, search: KnapSpecSearch) -> None:
        self.drafter = PacedLayersDrafter(
            search,
            stop_probability=self._settings.stop_threshold,
            max_draft=self._settings.max_draft,
        )

    def settings(self) -> dict[str, Any]:
        return {"method": "knapspec", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(
            KnapSpecSearch.from_state(state, self._model.n_layer, self._costs, self._settings)
        )


class LayerSkip:
    """Drafts by one early exit and verifies from there (LayerSkip, arXiv 2404.16710)."""

    def __init__(self, model: Model, settings: LayerSkipSettings | None = None) -> None:
        self._settings = settings or LayerSkipSettings()
        self.drafter = LayerSkipDrafter(model.n_layer, self._settings)

    def settings(self) -> dict[str, Any]:
        return {"method": "layerskip", **asdict(self._settings)}

    def state(self) -> None:
        return None

    def resume(self, state: Mapping[str, Any]) -> None:
        pass


class Del:
    """Drafts by the early exit, and for the length, that DEL chooses each round (arXiv
    2504.05598)."""

    def __init__(self, model: Model, settings: DelSettings | None = None) -> None:
        self._settings = settings or DelSettings()
        self.drafter = DelDrafter(model.n_layer, self._settings)

    def settings(self) -> dict[str, Any]:
        return {"method": "del", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self.drafter.resume(state)


METHODS: dict[str, Callable[[Model], Method]] = {
    "plain": Plain,
    "conflayers": ConfLayers,
    "clasp": Clasp,
    "knapspec": KnapSpec,
    "layerskip": LayerSkip,
    "del": Del,
}


def make_method(name: str, model: Model) -> Method:
    """The method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, or the model is too small for it.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    return METHODS[name](model)
