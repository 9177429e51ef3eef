"""The methods that a user can name, and how each one's drafter is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from edge_conflayers.drafters import Drafter
from edge_conflayers.drafters.layers import LayersDrafter
from edge_conflayers.drafters.measured import MeasuredDrafter
from edge_conflayers.errors import BadInput
from edge_conflayers.kinds import SKIP_SETS_PROFILE, SkipSets
from edge_conflayers.model import Model
from edge_conflayers.search.conflayers import ConfLayersSearch, ConfLayersSettings
from edge_conflayers.search.measured import MeasuredSearch, MeasuredSettings
from edge_conflayers.search.prices import guessed_prices, measured_prices
from edge_conflayers.search.swift import SwiftSearch, SwiftSettings


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


class Swift:
    """Drafts with the sub-layers dropped that the published SWIFT search finds (arXiv
    2410.06916)."""

    drafter: LayersDrafter

    def __init__(self, model: Model, settings: SwiftSettings | None = None) -> None:
        self._model = model
        self._settings = settings or SwiftSettings()
        self._use(SwiftSearch(model.n_layer, self._settings))

    def _use(self, search: SwiftSearch) -> None:
        self._search = search
        self.drafter = LayersDrafter(
            search,
            stop_probability=self._settings.stop_threshold,
            max_draft=self._settings.max_draft,
        )

    def settings(self) -> dict[str, Any]:
        return {"method": "swift", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self._search.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(SwiftSearch.from_state(state, self._model.n_layer, self._settings))


class Measured:
    """Drafts with the sub-layers dropped that are predicted to be fastest on this machine, by kind
    of prompt; what it learns it shares with ``tune``."""

    drafter: MeasuredDrafter

    def __init__(self, model: Model, settings: MeasuredSettings | None = None) -> None:
        self._model = model
        self._settings = settings or MeasuredSettings()
        self._use(SkipSets(model.n_layer))

    def _use(self, sets: SkipSets) -> None:
        prices = (
            guessed_prices(self._model)
            if sets.costs is None
            else measured_prices(self._model, sets.costs)
        )
        self.drafter = MeasuredDrafter(
            MeasuredSearch(self._model.n_layer, prices, self._settings), sets
        )

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        self.drafter.keep()
        return self.drafter.sets.to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(SkipSets.from_json(state, self._model.n_layer))


METHODS: dict[str, Callable[[Model], Method]] = {
    "plain": Plain,
    "conflayers": ConfLayers,
    "swift": Swift,
    "measured": Measured,
}


def make_method(name: str, model: Model) -> Method:
    """The method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, or the model is too small for it.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    return METHODS[name](model)
