"""Prices of steps as the objective takes them, and a guess where nothing was measured."""

from __future__ import annotations

from dataclasses import dataclass

from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.costs.prices import Prices, PricesAt
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask

_LEAST_C = 0.02


@dataclass
class AtContext:
    """Prices at one context length (``objective.StepPrices``).

    Attributes:
        prices: in them.
        context: tokens in the cache; may be set anew as the text grows.
        saved_seconds: what a draft vocabulary saves of a draft step (``vocabulary``).
    """

    prices: Prices
    context: int = 0
    saved_seconds: float = 0.0

    def c(self, mask: LayerMask) -> float:
        return max(_LEAST_C, self.prices.c(mask, self.context, saved_seconds=self.saved_seconds))

    def v(self, n: int) -> float:
        return self.prices.v(n, self.context)


def guessed_prices(model: Model) -> Prices:
    """Before anything is measured: a one-token step costs what it reads of the weights. T1 counts
    as one second."""
    costs = costs_by_weights(model)
    return Prices((PricesAt(1, 1.0, costs.attention, costs.mlp, {2: costs.verify(2)}),))
