"""Prices of steps for the objective where nothing better is known: straight lines."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from edge_conflayers.cost import Costs
from edge_conflayers.model import Model
from edge_conflayers.session import LayerMask

_TYPICAL_TOKEN = 0.07  # of a one-token step, for each further token; CPU kernels, mid-size models
_LEAST_C = 0.02


@dataclass(frozen=True)
class LinearPrices:
    """Every dropped sub-layer of a kind saves the same; V(n) is linear between known points.

    Attributes:
        attention, mlp: what dropping one saves of a full one-token step.
        steps: V(n) for some n, 1 included.
    """

    attention: float
    mlp: float
    steps: Mapping[int, float]

    def c(self, mask: LayerMask) -> float:
        saved = len(mask.attention) * self.attention + len(mask.mlp) * self.mlp
        return max(_LEAST_C, 1.0 - saved)

    def v(self, n: int) -> float:
        """Beyond the largest known n the last slope goes on."""
        known = sorted(self.steps)
        if n in self.steps or len(known) == 1:
            return self.steps.get(n, self.steps[known[0]])
        right = min(max(bisect_left(known, n), 1), len(known) - 1)
        low, high = known[right - 1], known[right]
        slope = (self.steps[high] - self.steps[low]) / (high - low)
        return self.steps[low] + slope * (n - low)


def guessed_prices(model: Model) -> LinearPrices:
    """Before anything is measured: a one-token step costs what it reads, in weights."""
    attention, mlp, head = _weights(model)
    whole = model.n_layer * (attention + mlp) + head
    return LinearPrices(attention / whole, mlp / whole, {1: 1.0, 2: 1.0 + _TYPICAL_TOKEN})


def measured_prices(model: Model, costs: Costs) -> LinearPrices:
    """From measured V(n), and from c of the largest measured skip set, shared out among its
    attention and feed-forward sub-layers by their weights."""
    steps = {1: 1.0, **costs.v}
    largest = max(costs.c, key=lambda cost: len(cost.skip_set), default=None)
    if largest is None or not largest.skip_set:
        guess = guessed_prices(model)
        return LinearPrices(guess.attention, guess.mlp, steps)
    layer = (1.0 - largest.c) / len(largest.skip_set)
    attention, mlp, _ = _weights(model)
    share = attention / (attention + mlp)
    return LinearPrices(layer * share, layer * (1.0 - share), steps)


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
