"""What a one-token step reads of the weights: what bounds its time where memory is the bottleneck.

The floor of a step is these bytes over the speed at which memory is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_conflayers.engine.gguf_tensors import Tensor, read_tensors
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import NO_MASK, LayerMask

_OF_LAYER = re.compile(r"blk\.(\d+)\.(\w+)")
# Of these a step reads the row of its token only.
_TABLES = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
_HEAD = "output.weight"  # a model without one multiplies by its token embeddings


@dataclass(frozen=True)
class BytesRead:
    """Bytes of weights that a one-token step reads.

    Attributes:
        attention, mlp: by layer; an expert model's MLPs by the experts that a token uses.
        rest: the LM head, norms and whatever else.
    """

    attention: Mapping[int, float]
    mlp: Mapping[int, float]
    rest: float

    def under(self, mask: LayerMask = NO_MASK) -> float:
        """Of a step that leaves these sub-layers out."""
        return (
            self.rest
            + sum(size for layer, size in self.attention.items() if layer not in mask.attention)
            + sum(size for layer, size in self.mlp.items() if layer not in mask.mlp)
        )


def is_read(tensor: Tensor, tensors: Iterable[Tensor]) -> bool:
    """Whether a step reads a tensor whole, and not just the row of a token."""
    table = tensor.name.split(".")[0]
    if table == "token_embd":
        return not any(each.name == _HEAD for each in tensors)
    return table not in _TABLES


def bytes_read(tensors: Iterable[Tensor], n_layer: int, used_experts: float = 1.0) -> BytesRead:
    """The bytes of a model's steps.

    Args:
        tensors: the model's.
        n_layer: layers that a step runs; those after them, which predict further tokens, do not
            count.
        used_experts: share of the experts that a token uses.
    """
    tensors = list(tensors)
    attention = dict.fromkeys(range(n_layer), 0.0)
    mlp = dict.fromkeys(range(n_layer), 0.0)
    rest = 0.0
    for tensor in tensors:
        size = tensor.n_bytes * (used_experts if "_exps" in tensor.name else 1.0)
        match = _OF_LAYER.match(tensor.name)
        if match is None:
            rest += size if is_read(tensor, tensors) else 0.0
        elif int(match[1]) < n_layer:
            part = mlp if match[2].startswith(("ffn", "post_ffw")) else attention
            part[int(match[1])] += size
    return BytesRead(attention, mlp, rest)


def bytes_read_by(model: LanguageModel) -> BytesRead | None:
    """The bytes of a loaded model's steps; None where it is no GGUF file.

    Raises:
        BadInput: the file is damaged.
    """
    if not model.path.is_file():
        return None
    return bytes_read(read_tensors(model.path), model.n_layer, used_experts(model))


def used_experts(model: LanguageModel) -> float:
    """Share of a model's experts that a token uses; 1 for a model without."""
    experts = model.hyperparameter("expert_count", 0)
    return model.hyperparameter("expert_used_count", experts) / experts if experts else 1.0
