"""An estimate of step costs where nothing was measured: a step costs what it reads of the weights.

Decoding on a CPU is bound by reading weights from memory, so a sub-layer's share of the weights is
about its share of a one-token step.
"""

from __future__ import annotations

from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.engine.language_model import LanguageModel

# V(n) - 1 for each token after the first. Measured 2026-11-23 (Xeon, AVX-512 VNNI): (V(4) - 1) / 3
# was 0.05 on the 1.5B, 0.06 on the 0.5B, 0.05 on Gemma 270M and 0.09 on SmolLM2.
_FURTHER_TOKEN = 0.07


def costs_by_weights(model: LanguageModel) -> StepCosts:
    """The costs of a model's steps by the sizes of its weights; T1 counts as one second."""
    width = model.n_embd
    heads = model.hyperparameter("attention.head_count", 1)
    heads_kv = model.hyperparameter("attention.head_count_kv", heads)
    head_dim = model.hyperparameter("attention.key_length", width // max(heads, 1))
    attention = 2.0 * width * head_dim * (heads + heads_kv)
    mlp = 3.0 * width * model.hyperparameter("feed_forward_length", 4 * width)
    whole = model.n_layer * (attention + mlp) + width * model.n_vocab
    v = {2: 1.0 + _FURTHER_TOKEN}
    return StepCosts((Measurement(1, 1.0, attention / whole, mlp / whole, v),))
