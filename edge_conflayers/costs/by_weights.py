"""What a round brings and what its steps cost, for choices among skip sets, exits and lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_conflayers.engine.model import Model

_FURTHER_TOKEN = 0.07  # of a one-token step, for each further one; our CPU kernels on small models


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens that a round of ``gamma`` drafted ones gives if each is accepted with chance
    ``alpha`` given that all before it were (Leviathan et al., arXiv 2211.17192)."""
    if alpha >= 1.0:
        return gamma + 1.0
    return float((1.0 - alpha ** (gamma + 1)) / (1.0 - alpha))


@dataclass(frozen=True)
class LayerCosts:
    """Costs of a model's parts, in full one-token steps.

    Attributes:
        attention, mlp: one layer's sub-layers for one token.
        verify: V(n), a full step over n tokens.
        attention_per_token: what one attention costs more for each token in the cache.
    """

    attention: float
    mlp: float
    verify: Callable[[int], float]
    attention_per_token: float = 0.0

    def attention_at(self, context: int) -> float:
        """One layer's attention with this many tokens in the cache."""
        return self.attention + self.attention_per_token * context


def costs_by_weights(model: Model) -> LayerCosts:
    """What to go by where nothing is measured: a step costs what it reads of the weights."""
    meta, arch, width = model.metadata, model.architecture, model.n_embd

    def number(key: str, default: int) -> int:
        values = meta.get(f"{arch}.{key}", "").strip("[]").split(",")
        return max((int(v) for v in values if v.strip().isdigit()), default=default)

    heads = number("attention.head_count", 1)
    heads_kv = number("attention.head_count_kv", heads)
    head_dim = number("attention.key_length", width // max(heads, 1))
    attention = 2.0 * width * head_dim * (heads + heads_kv)
    mlp = 3.0 * width * number("feed_forward_length", 4 * width)
    whole = model.n_layer * (attention + mlp) + width * model.n_vocab
    return LayerCosts(attention / whole, mlp / whole, lambda n: 1.0 + _FURTHER_TOKEN * (n - 1))
