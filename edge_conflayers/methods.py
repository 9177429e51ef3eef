"""The methods that a user can name, and how each one's drafter is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from edge_conflayers.drafters import Drafter
from edge_conflayers.drafters.layers import LayersDrafter
from edge_conflayers.errors import BadInput
from edge_conflayers.model import Model
from edge_conflayers.search.conflayers import ConfLayersSearch, ConfLayersSettings


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


METHODS: dict[str, Callable[[Model], Method]] = {
    "plain": Plain,
    "conflayers": ConfLayers,
}


def make_method(name: str, model: Model) -> Method:
    """The method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, or the model is too small for it.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    return METHODS[name](model)
