"""Methods that draft by early exits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edge_conflayers.drafters.dynamic_exit import DelDrafter, DelSettings
from edge_conflayers.drafters.early_exit import LayerSkipDrafter, LayerSkipSettings
from edge_conflayers.engine.model import Model
from edge_conflayers.methods.method import Forgetful, MethodOptions, Simple


class LayerSkip(Forgetful):
    """Drafts by one early exit and verifies from there (LayerSkip, arXiv 2404.16710)."""

    def __init__(
        self, model: Model, options: MethodOptions, settings: LayerSkipSettings | None = None
    ) -> None:
        self._settings = settings or LayerSkipSettings()
        self.drafter = LayerSkipDrafter(model.n_layer, self._settings)

    def settings(self) -> dict[str, Any]:
        return {"method": "layerskip", **asdict(self._settings)}


class Del(Simple):
    """Drafts by the early exit, and for the length, that DEL chooses each round (arXiv
    2504.05598)."""

    def __init__(
        self, model: Model, options: MethodOptions, settings: DelSettings | None = None
    ) -> None:
        self._settings = settings or DelSettings()
        self.drafter = DelDrafter(model.n_layer, self._settings)

    def settings(self) -> dict[str, Any]:
        return {"method": "del", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self.drafter.resume(state)
