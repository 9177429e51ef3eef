"""What a model's layers compute, from its metadata; what is not supported is refused by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edge_conflayers.engine.gguf_header import Header
from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.gguf_file import GgufFile
from edge_conflayers.onnx.rope import Rope, yarn_magnitude

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")


@dataclass(frozen=True)
class Architecture:
    """A model's hyperparameters.

    Attributes:
        name: the architecture's name in GGUF.
        n_layer, n_embd, n_head, n_head_kv, head_dim, n_vocab: sizes.
        n_ctx_train: the longest text it was trained on, in tokens.
        epsilon: of the RMS norms.
        activation: of the gate of an MLP.
        attention_scale: of the products of queries and keys.
        windows: for each layer, how many positions a token sees, itself included; 0 for all.
        ropes: for each layer.
        pairs_adjacent: whether rows of q and k are ordered so that adjacent ones are rotated
            together, as llama.cpp's NORM rotation wants it.
        qk_norm: whether queries and keys are normalized per head.
        post_norm: whether a sub-layer's output is normalized before it is added.
        embedding_scale: what token embeddings are multiplied by.
        logit_cap: soft cap of the logits; 0 for none.
    """

    name: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    n_ctx_train: int
    epsilon: float
    activation: Literal["silu", "gelu"]
    attention_scale: float
    windows: tuple[int, ...]
    ropes: tuple[Rope, ...]
    pairs_adjacent: bool
    qk_norm: bool
    post_norm: bool
    embedding_scale: float
    logit_cap: float


def read_architecture(file: GgufFile) -> Architecture:
    """A model's hyperparameters, as llama.cpp understands them (src/models of llama.cpp).

    Raises:
        BadInput: the architecture, or something that its metadata asks for, is not supported.
    """
    name = file.header.text("general.architecture")
    if name not in ARCHITECTURES:
        raise BadInput(
            f"{file.path} is a {name} model, which is not supported here;"
            f" choose one of {', '.join(ARCHITECTURES)}"
        )
    keys = _Keys(file)
    _refuse(keys)
    n_layer, n_embd = keys.whole("block_count"), keys.whole("embedding_length")
    n_head = keys.whole("attention.head_count")
    head_dim = keys.whole("attention.key_length", n_embd // n_head)
    gemma = name == "gemma3"
    windows = _windows(keys, n_layer) if gemma else (0,) * n_layer
    # The 27B model, which llama.cpp knows by its number of layers
    scaled_by = n_embd // n_head if gemma and n_layer == 62 else head_dim
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BadInput(f"{file.path} has no token_embd.weight; use an undamaged GGUF model")
    tokens = file.header.lengths.get("tokenizer.ggml.tokens", 0)
    if tokens != embedding.rows:
        raise BadInput(
            f"{file.path} has {tokens} tokens, but embeddings of {embedding.rows};"
            " use an undamaged GGUF language model"
        )
    return Architecture(
        name=name,
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=keys.whole("attention.head_count_kv", n_head),
        head_dim=head_dim,
        n_vocab=embedding.rows,
        n_ctx_train=keys.whole("context_length"),
        epsilon=keys.number("attention.layer_norm_rms_epsilon"),
        activation="gelu" if gemma else "silu",
        attention_scale=1 / math.sqrt(scaled_by),
        windows=windows,
        ropes=_ropes(keys, file, head_dim, windows),
        pairs_adjacent=name == "llama",
        qk_norm=name in ("qwen3", "gemma3"),
        post_norm=gemma,
        embedding_scale=math.sqrt(n_embd) if gemma else 1.0,
        logit_cap=keys.number("final_logit_softcapping", 0.0) if gemma else 0.0,
    )


class _Keys:
    """The architecture's own keys of a header."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.header: Header = file.header
        self.prefix = self.header.text("general.architecture")

    def refuse(self, key: str, why: str) -> BadInput:
        return BadInput(f"{self._file.path} is not supported here: {self.prefix}.{key} {why}")

    def number(self, key: str, default: float | None = None) -> float:
        """A number; of one for each layer, the one that all layers have.

        Raises:
            BadInput: there is none and no default, or layers differ.
        """
        value = self.header.values.get(f"{self.prefix}.{key}", default)
        if isinstance(value, tuple):
            if len(set(value)) != 1:
                raise self.refuse(key, "differs from layer to layer, which is not supported")
            value = value[0]
        if not isinstance(value, int | float):
            raise self.refuse(key, "is missing; use an undamaged GGUF language model")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            raise self.refuse(key, f"is {value}, but must be a whole number")
        return int(value)

    def text(self, key: str, default: str) -> str:
        return self.header.text(f"{self.prefix}.{key}") or default


def _refuse(keys: _Keys) -> None:
    if keys.number("expert_count", 0):
        raise keys.refuse("expert_count", "asks for a mixture of experts, which is not supported")
    if not keys.number("attention.causal", True):
        raise keys.refuse("attention.causal", "is false: it is no text-generating model")
    if keys.number("nextn_predict_layers", 0):
        raise keys.refuse("nextn_predict_layers", "asks for layers that are not supported")
    size = keys.whole(
        "attention.key_length",
        keys.whole("embedding_length") // keys.whole("attention.head_count"),
    )
    for key in (
        "attention.value_length",
        "attention.key_length_swa",
        "attention.value_length_swa",
        "rope.dimension_count",
        "rope.dimension_count_swa",
    ):
        if keys.whole(key, size) != size:
            raise keys.refuse(key, f"is not {size}, the size of a head's keys; not supported")


def _windows(keys: _Keys, n_layer: int) -> tuple[int, ...]:
    """Gemma 3's sliding windows: ``load_swa_pattern`` with a period of 6."""
    window = keys.whole("attention.sliding_window", 0)
    pattern = keys.header.values.get(f"{keys.prefix}.attention.sliding_window_pattern", 6)
    if isinstance(pattern, tuple):
        if len(pattern) != n_layer:
            raise keys.refuse("attention.sliding_window_pattern", f"is not for {n_layer} layers")
        return tuple(window if local else 0 for local in pattern)
    period = int(pattern) if isinstance(pattern, int) else 6
    return tuple(
        window if period == 0 or layer % period < period - 1 else 0 for layer in range(n_layer)
    )


def _ropes(
    keys: _Keys, file: GgufFile, head_dim: int, windows: tuple[int, ...]
) -> tuple[Rope, ...]:
    kind = keys.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise keys.refuse("rope.scaling.type", f"is {kind}, which is not supported")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0.0))
    scale = 1.0 if kind == "none" or factor == 0 else 1 / factor
    yarn = kind == "yarn"
    context = keys.whole("rope.scaling.original_context_length", keys.whole("context_length"))
    magnitude = (yarn_magnitude(scale) if yarn else 1.0) * keys.number(
        "rope.scaling.attn_factor", 1.0
    )
    factors = file.tensors.get("rope_freqs.weight")
    if factors is not None and factors.shape != (head_dim // 2,):
        raise BadInput(f"{file.path}: rope_freqs.weight does not fit heads of {head_dim}")
    rope = Rope(
        head_dim,
        keys.number("rope.freq_base", 10000.0),
        scale,
        context if yarn else 0,
        magnitude,
        () if factors is None else tuple(map(float, factors.values())),
    )
    local = Rope(
        head_dim,
        keys.number("rope.freq_base_swa", 10000.0),
        1.0,
        context if yarn else 0,
        magnitude,
    )
    return tuple(local if window else rope for window in windows)
