"""Prices of steps as the objective takes them, and a guess where nothing was measured."""

from __future__ import annotations

from dataclasses import dataclass

from edge_conflayers.model import Model
from edge_conflayers.prices import Prices, PricesAt
from edge_conflayers.session import LayerMask

_TYPICAL_TOKEN = 0.07  # of a one-token step, for each further token; CPU kernels, mid-size models
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
    """Before anything is measured: a one-token step costs what it reads, in weights. T1 counts as
    one second."""
    attention, mlp, head = _weights(model)
    whole = model.n_layer * (attention + mlp) + head
    v = {2: 1.0 + _TYPICAL_TOKEN}
    return Prices((PricesAt(1, 1.0, attention / whole, mlp / whole, v),))


def _weights(model: Model) -> tuple[float, float, float]:
    """About how many weights a token reads in one attention, one feed-forward, and the head."""
    width = model.n_embd
    heads = _number(model, "attention.head_count", 1)
    heads_kv = _number(model, "attention.head_count_kv", heads)
    key = _number(model, "attention.key_length", width // heads)
    attention = width * key * 2 * (heads + heads_kv)
    experts = _number(model, "expert_used_count", 0)
    inner = _number(model, "expert_feed_forward_length", 0) * experts
    mlp = 3 * width * (inner or _number(model, "feed_forward_length", 4 * width))
    return attention, mlp, width * model.n_vocab


def _number(model: Model, key: str, default: int) -> int:
    """A number of the file's metadata; of one a layer, the first that is not 0."""
    found = model.metadata.get(f"{model.architecture}.{key}", "").strip("[]")
    numbers = [int(part) for part in found.split(",") if part.strip().isdigit()]
    return next((number for number in numbers if number > 0), default)
