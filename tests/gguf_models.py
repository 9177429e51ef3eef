"""GGUF files for tests: tiny random models, and copies of a model without some of its layers.

`write_tiny_model` writes a random-weight language model that upstream llama.cpp loads and runs.
`remove_layers` and `zero_sublayers` write the references that a layer mask is compared with.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFValueType

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Family:
    """What tells one attention architecture's tensors from another's.

    Follows `load_arch_hparams` and `load_arch_tensors` in llama.cpp's `src/models/<arch>.cpp`.
    """

    norm: Literal["rms", "layer"] = "rms"
    pre_norm: bool = True
    post_norm: bool = False
    fused_qkv: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp: Literal["gated", "fused_gate", "plain", "experts"] = "gated"
    mlp_bias: bool = False
    shared_expert: bool = False
    qk_norm: Literal["none", "per_head", "full"] = "none"
    grouped_kv: bool = True
    free_head_dim: bool = False
    rope_fraction: float = 1.0
    learned_positions: bool = False
    scaled_embedding: bool = False
    tied: bool = False
    sliding_window: Literal["never", "optional", "always"] = "never"
    parallel: Literal["never", "optional", "always"] = "never"
    parallel_shares_norm: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family(free_head_dim=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm="per_head", free_head_dim=True),
    "gemma2": Family(
        post_norm=True,
        free_head_dim=True,
        scaled_embedding=True,
        tied=True,
        sliding_window="always",
    ),
    "gemma3": Family(
        post_norm=True,
        qk_norm="per_head",
        free_head_dim=True,
        scaled_embedding=True,
        sliding_window="always",
    ),
    "phi3": Family(fused_qkv=True, mlp="fused_gate"),
    "olmo2": Family(pre_norm=False, post_norm=True, qk_norm="full", sliding_window="optional"),
    "olmoe": Family(mlp="experts", qk_norm="full", grouped_kv=False),
    "qwen2moe": Family(qkv_bias=True, mlp="experts", shared_expert=True),
    "gptneox": Family(
        norm="layer",
        fused_qkv=True,
        qkv_bias=True,
        out_bias=True,
        mlp="plain",
        mlp_bias=True,
        rope_fraction=0.5,
        parallel="optional",
    ),
    "gpt2": Family(
        norm="layer",
        fused_qkv=True,
        qkv_bias=True,
        out_bias=True,
        mlp="plain",
        mlp_bias=True,
        learned_positions=True,
    ),
    "starcoder2": Family(norm="layer", qkv_bias=True, out_bias=True, mlp="plain", mlp_bias=True),
    "stablelm": Family(
        norm="layer", rope_fraction=0.5, parallel="optional", parallel_shares_norm=True
    ),
    "falcon": Family(
        norm="layer", fused_qkv=True, mlp="plain", parallel="always", parallel_shares_norm=True
    ),
}
"""Architectures with attention: a layer mask can serve them."""

RECURRENT = ("mamba",)
"""Architectures without attention layers: a layer mask must refuse them."""

ARCHITECTURES = (*FAMILIES, *RECURRENT)

QUANTS: Mapping[str, GGMLQuantizationType] = {
    name: GGMLQuantizationType[name.upper()]
    for name in ("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
}
"""What the `gguf` package can quantize to; K-quants it can only read."""

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)

_VALUE_TYPES = {
    bool: GGUFValueType.BOOL,
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    str: GGUFValueType.STRING,
}
_N_EXPERT = 4
_N_EXPERT_USED = 2
_DEFAULT_WINDOW = 64
_BYTE_TOKENS_END = 3 + 256
_COMMON_PIECES = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le"
)


class _Weights:
    """Random tensors for a writer; each depends on the seed and its own name only."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int, quant: GGMLQuantizationType) -> None:
        self._writer = writer
        self._seed = seed
        self._quant = quant

    def _normal(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        return rng.standard_normal(shape, dtype=np.float32)

    def plain(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Add a tensor that llama.cpp keeps in F32, shape as in numpy (rows first)."""
        self._writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))

    def matrix(self, name: str, *shape: int, std: float, quantized: bool = True) -> None:
        """Add a weight of `shape` (..., out, in) with entries of that standard deviation."""
        values = self._normal(name, shape) * np.float32(std)
        if quantized and self._quant is not GGMLQuantizationType.F32:
            self._writer.add_tensor(
                name, gguf.quants.quantize(values, self._quant), raw_dtype=self._quant
            )
        else:
            self.plain(name, values)

    def linear(self, name: str, *shape: int, gain: float = 1.0, quantized: bool = True) -> None:
        """Add a weight of `shape` (..., out, in) whose output has `gain` times the input's size."""
        self.matrix(name, *shape, std=gain / float(np.sqrt(shape[-1])), quantized=quantized)

    def bias(self, name: str, size: int, gain: float = 1.0) -> None:
        self.plain(name, self._normal(name, (size,)) * np.float32(0.1 * gain))

    def norm(self, name: str, size: int, *, bias: bool = False, gain: float = 1.0) -> None:
        values = 1 + self._normal(f"{name}.weight", (size,)) * np.float32(0.1)
        self.plain(f"{name}.weight", values * np.float32(gain))
        if bias:
            self.bias(f"{name}.bias", size)

    def signs(self, name: str, size: int) -> None:
        """Add a norm weight of random signs and sizes near one."""
        values = self._normal(name, (size,))
        self.plain(name, np.sign(values) * (1 + np.float32(0.1) * values))


# Where in a block there are numbers in float16; elsewhere any byte is right.
_HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_XS": (0,),
}


def random_blocks(kind: GGMLQuantizationType, rows: int, columns: int, seed: int = 0) -> Array:
    """Random weights as a GGUF file stores them: uint8 [rows, bytes of a row], or floats."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns), dtype=np.float32)
    if kind.name in ("F32", "F16", "BF16"):
        return gguf.quants.quantize(values, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    for at in _HALVES[kind.name]:
        halves = rng.standard_normal((rows, columns // block, 1)).astype(np.float16)
        stored[..., at : at + 2] = halves.view(np.uint8)
    return stored.reshape(rows, -1)


def write_tiny_model(
    path: Path,
    arch: str,
    *,
    n_layer: int = 4,
    n_embd: int = 64,
    n_head: int = 4,
    n_head_kv: int | None = None,
    head_dim: int | None = None,
    n_ff: int = 128,
    n_vocab: int = 320,
    seed: int = 0,
    quant: str = "f32",
    context_length: int = 4096,
    sliding_window: int | None = None,
    parallel_residual: bool | None = None,
    layer_gain: float = 1.0,
    output_bias: bool = False,
    layer_biases: bool = False,
    tied: bool = False,
    rope_factors: bool = False,
    metadata: Collection[tuple[str, bool | int | float | str]] = (),
) -> Path:
    """Write a random-weight model of `arch` (one of `ARCHITECTURES`) and return `path`.

    Every layer adds to the residual stream about as much as the stream holds, so dropping one
    changes most next tokens; `layer_gain` scales what each adds (at 0.1 most next tokens
    survive a drop). `n_ff` is the width of one expert in the mixture models, which have 4
    experts and use 2. `n_head_kv` is by default half of `n_head` where the architecture groups
    its KV heads. `head_dim` may differ from `n_embd // n_head` in llama, qwen3, gemma2 and gemma3.
    `sliding_window` (tokens, 64 by default) counts for gemma2 and gemma3, and for olmo2 when given;
    every second layer, from the first, has it. `parallel_residual` chooses between attention and
    feed-forward side by side and one after the other for gptneox (default true) and stablelm
    (default false). `output_bias` adds a bias to the LM head, which qwen2 reads, `layer_biases` to
    the matrices of each layer, which llama reads. `tied` leaves the LM head out, so that it is the
    embedding. `rope_factors` adds a tensor that the rotation's frequencies are divided by, which
    llama reads. `metadata` is further keys, without the architecture, and their values. `mamba`
    ignores `n_head`, `n_head_kv`, `head_dim` and `n_ff`.

    The tokenizer is SentencePiece with byte fallback: id 0 unknown, 1 begin, 2 end, 3 to 258 the
    bytes, then pieces; any text tokenizes. A chat template is included.

    Raises ValueError for arguments that llama.cpp would not load: rows (`n_embd`, `n_ff`, and
    heads times head size) must be multiples of the quant's block, 32 for the q types.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"{arch}: not one of {', '.join(ARCHITECTURES)}")
    if quant not in QUANTS:
        raise ValueError(f"quant {quant}: not one of {', '.join(QUANTS)}")
    if n_vocab <= _BYTE_TOKENS_END:
        raise ValueError(f"n_vocab {n_vocab}: must be above {_BYTE_TOKENS_END}")
    block = gguf.GGML_QUANT_SIZES[QUANTS[quant]][0]

    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.MODEL)
    # llama.cpp reads the name: one with "phi3" in it must have that model's special tokens.
    writer.add_name("tiny random model")
    writer.add_file_type(_file_type(quant))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(n_layer)
    writer.add_context_length(context_length)
    writer.add_embedding_length(n_embd)
    writer.add_vocab_size(n_vocab)
    weights = _Weights(writer, seed, QUANTS[quant])
    if arch in RECURRENT:
        if sliding_window is not None or parallel_residual is not None:
            raise ValueError(f"{arch}: has neither a sliding window nor a parallel residual")
        _check_rows(block, n_embd=n_embd)
        _add_mamba(
            writer, weights, n_layer=n_layer, n_embd=n_embd, n_vocab=n_vocab, layer_gain=layer_gain
        )
    else:
        family = FAMILIES[arch]
        shape = _resolve_shape(
            arch,
            family,
            n_layer=n_layer,
            n_embd=n_embd,
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim=head_dim,
            n_ff=n_ff,
            n_vocab=n_vocab,
            context_length=context_length,
            sliding_window=sliding_window,
            parallel_residual=parallel_residual,
            layer_gain=layer_gain,
        )
        _check_rows(block, n_embd=n_embd, n_ff=n_ff, heads=n_head * shape.head_dim)
        _add_attention_metadata(writer, arch, family, shape)
        for key, value in metadata:
            writer.add_key_value(f"{arch}.{key}", value, _VALUE_TYPES[type(value)])
        _add_embedding_and_output(weights, family, shape, tied=tied or family.tied)
        if rope_factors:
            factors = np.linspace(1, 8, shape.head_dim // 2, dtype=np.float32)
            weights.plain("rope_freqs.weight", factors)
        if output_bias:
            weights.bias("output.bias", n_vocab)
        for layer in range(n_layer):
            _add_attention(weights, family, shape, f"blk.{layer}")
            _add_mlp(weights, family, shape, f"blk.{layer}")
            if layer_biases:
                _add_biases(weights, shape, f"blk.{layer}")
    _add_tokenizer(writer, n_vocab)
    return _finish(writer, path)


@dataclass(frozen=True)
class _Shape:
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_vocab: int
    context_length: int
    sliding_window: int | None
    parallel: bool
    layer_gain: float


def _resolve_shape(
    arch: str,
    family: Family,
    *,
    n_layer: int,
    n_embd: int,
    n_head: int,
    n_head_kv: int | None,
    head_dim: int | None,
    n_ff: int,
    n_vocab: int,
    context_length: int,
    sliding_window: int | None,
    parallel_residual: bool | None,
    layer_gain: float,
) -> _Shape:
    if n_head_kv is None:
        n_head_kv = max(1, n_head // 2) if family.grouped_kv else n_head
    if n_head % n_head_kv or (n_head_kv != n_head and not family.grouped_kv):
        raise ValueError(f"{arch}: n_head {n_head} and n_head_kv {n_head_kv} do not go together")
    if head_dim is None:
        if n_embd % n_head:
            raise ValueError(f"n_embd {n_embd}: must be a multiple of n_head {n_head}")
        head_dim = n_embd // n_head
    if head_dim * n_head != n_embd and not family.free_head_dim:
        raise ValueError(f"{arch}: head_dim must be n_embd // n_head")
    if head_dim % 2 or int(head_dim * family.rope_fraction) % 2:
        raise ValueError(f"{arch}: head_dim {head_dim} leaves an odd number of rotary dimensions")
    if sliding_window is None and family.sliding_window == "always":
        sliding_window = _DEFAULT_WINDOW
    if sliding_window is not None and family.sliding_window == "never":
        raise ValueError(f"{arch}: has no sliding window in llama.cpp")
    default = arch == "gptneox" if family.parallel == "optional" else family.parallel == "always"
    parallel = default if parallel_residual is None else parallel_residual
    if parallel != default and family.parallel != "optional":
        raise ValueError(f"{arch}: cannot have parallel_residual={parallel}")
    return _Shape(
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        n_ff=n_ff,
        n_vocab=n_vocab,
        context_length=context_length,
        sliding_window=sliding_window,
        parallel=parallel,
        layer_gain=layer_gain,
    )


def _check_rows(block: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size % block:
            raise ValueError(f"{name} {size}: must be a multiple of {block} for this quant")


def _file_type(quant: str) -> int:
    if quant == "f32":
        return int(gguf.LlamaFileType.ALL_F32)
    return int(gguf.LlamaFileType[f"MOSTLY_{quant.upper()}"])


def _add_attention_metadata(
    writer: gguf.GGUFWriter, arch: str, family: Family, shape: _Shape
) -> None:
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_feed_forward_length(shape.n_ff)
    if family.norm == "rms":
        writer.add_layer_norm_rms_eps(1e-6)
    else:
        writer.add_layer_norm_eps(1e-5)
    if family.free_head_dim:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    if not family.learned_positions:
        writer.add_rope_dimension_count(int(shape.head_dim * family.rope_fraction))
    if arch == "gptneox":
        writer.add_parallel_residual(shape.parallel)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if shape.sliding_window is not None:
        writer.add_sliding_window(shape.sliding_window)
        writer.add_key_value(
            f"{arch}.attention.sliding_window_pattern",
            [layer % 2 == 0 for layer in range(shape.n_layer)],
            GGUFValueType.ARRAY,
            GGUFValueType.BOOL,
        )
    if arch == "gemma3":
        writer.add_rope_freq_base(1e6)
        writer.add_key_value(f"{arch}.rope.freq_base_swa", 1e4, GGUFValueType.FLOAT32)
    if family.mlp == "experts":
        writer.add_expert_count(_N_EXPERT)
        writer.add_expert_used_count(_N_EXPERT_USED)
        writer.add_expert_feed_forward_length(shape.n_ff)
    if family.shared_expert:
        writer.add_expert_shared_feed_forward_length(shape.n_ff)


def _add_biases(weights: _Weights, shape: _Shape, block: str) -> None:
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    for part, size in (
        *(("attn_q", n_q), ("attn_k", n_kv), ("attn_v", n_kv), ("attn_output", shape.n_embd)),
        *(("ffn_gate", shape.n_ff), ("ffn_up", shape.n_ff), ("ffn_down", shape.n_embd)),
    ):
        weights.bias(f"{block}.{part}.bias", size)


def _add_embedding_and_output(
    weights: _Weights, family: Family, shape: _Shape, *, tied: bool
) -> None:
    # The stream starts at size one; gemma multiplies its embedding by sqrt(n_embd).
    std = shape.n_embd**-0.5 if family.scaled_embedding else 1.0
    weights.matrix("token_embd.weight", shape.n_vocab, shape.n_embd, std=std)
    if family.learned_positions:
        weights.matrix(
            "position_embd.weight", shape.context_length, shape.n_embd, std=0.5, quantized=False
        )
    if tied:
        # Without the signs a tied model finds its own input token the likeliest, always.
        weights.signs("output_norm.weight", shape.n_embd)
    else:
        weights.norm("output_norm", shape.n_embd, bias=family.norm == "layer")
        weights.linear("output.weight", shape.n_vocab, shape.n_embd, gain=2.0)


def _add_attention(weights: _Weights, family: Family, shape: _Shape, block: str) -> None:
    n_embd, n_q = shape.n_embd, shape.n_head * shape.head_dim
    n_kv = shape.n_head_kv * shape.head_dim
    # A norm after the projection undoes the projection's gain, so the norm carries it.
    gain, post_gain = _branch_gains(family, shape)
    if family.pre_norm:
        weights.norm(f"{block}.attn_norm", n_embd, bias=family.norm == "layer")
    sizes = {"qkv": n_q + 2 * n_kv} if family.fused_qkv else {"q": n_q, "k": n_kv, "v": n_kv}
    for part, size in sizes.items():
        sharpness = 1.0 if part == "v" else 1.5
        weights.linear(f"{block}.attn_{part}.weight", size, n_embd, gain=sharpness)
        if family.qkv_bias:
            weights.bias(f"{block}.attn_{part}.bias", size)
    if family.qk_norm != "none":
        full = family.qk_norm == "full"
        weights.norm(f"{block}.attn_q_norm", n_q if full else shape.head_dim, gain=1.5)
        weights.norm(f"{block}.attn_k_norm", n_kv if full else shape.head_dim, gain=1.5)
    weights.linear(f"{block}.attn_output.weight", n_embd, n_q, gain=1.5 * gain)
    if family.out_bias:
        weights.bias(f"{block}.attn_output.bias", n_embd, gain)
    if family.post_norm:
        weights.norm(f"{block}.post_attention_norm", n_embd, gain=post_gain)


def _branch_gains(family: Family, shape: _Shape) -> tuple[float, float]:
    return (1.0, shape.layer_gain) if family.post_norm else (shape.layer_gain, 1.0)


def _add_mlp(weights: _Weights, family: Family, shape: _Shape, block: str) -> None:
    n_embd, n_ff = shape.n_embd, shape.n_ff
    gain, post_gain = _branch_gains(family, shape)
    if family.pre_norm and not (shape.parallel and family.parallel_shares_norm):
        weights.norm(f"{block}.ffn_norm", n_embd, bias=family.norm == "layer")
    if family.mlp == "experts":
        weights.linear(f"{block}.ffn_gate_inp.weight", _N_EXPERT, n_embd, quantized=False)
        for part in ("gate", "up"):
            weights.linear(f"{block}.ffn_{part}_exps.weight", _N_EXPERT, n_ff, n_embd, gain=1.5)
        weights.linear(f"{block}.ffn_down_exps.weight", _N_EXPERT, n_embd, n_ff, gain=1.5 * gain)
        if family.shared_expert:
            weights.linear(f"{block}.ffn_gate_inp_shexp.weight", n_embd, quantized=False)
            for part in ("gate", "up"):
                weights.linear(f"{block}.ffn_{part}_shexp.weight", n_ff, n_embd, gain=1.5)
            weights.linear(f"{block}.ffn_down_shexp.weight", n_embd, n_ff, gain=gain)
        return
    if family.mlp == "gated":
        weights.linear(f"{block}.ffn_gate.weight", n_ff, n_embd, gain=1.5)
    width = 2 * n_ff if family.mlp == "fused_gate" else n_ff
    weights.linear(f"{block}.ffn_up.weight", width, n_embd, gain=1.5)
    # Without a gate the hidden values vary less.
    down_gain = 2.0 * gain if family.mlp == "plain" else gain
    weights.linear(f"{block}.ffn_down.weight", n_embd, n_ff, gain=down_gain)
    if family.mlp_bias:
        weights.bias(f"{block}.ffn_up.bias", n_ff)
        weights.bias(f"{block}.ffn_down.bias", n_embd, gain)
    if family.post_norm:
        weights.norm(f"{block}.post_ffw_norm", n_embd, gain=post_gain)


def _add_mamba(
    writer: gguf.GGUFWriter,
    weights: _Weights,
    *,
    n_layer: int,
    n_embd: int,
    n_vocab: int,
    layer_gain: float,
) -> None:
    d_conv, d_inner, d_state, dt_rank = 4, 2 * n_embd, 16, max(1, n_embd // 16)
    writer.add_head_count(0)
    writer.add_feed_forward_length(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(d_conv)
    writer.add_ssm_inner_size(d_inner)
    writer.add_ssm_state_size(d_state)
    writer.add_ssm_time_step_rank(dt_rank)
    weights.matrix("token_embd.weight", n_vocab, n_embd, std=1.0)
    weights.norm("output_norm", n_embd)
    weights.linear("output.weight", n_vocab, n_embd, gain=2.0)
    decay = -np.tile(np.arange(1, d_state + 1, dtype=np.float32), (d_inner, 1))
    for layer in range(n_layer):
        block = f"blk.{layer}"
        weights.norm(f"{block}.attn_norm", n_embd)
        weights.linear(f"{block}.ssm_in.weight", 2 * d_inner, n_embd, gain=1.5)
        weights.linear(f"{block}.ssm_conv1d.weight", d_inner, d_conv, quantized=False)
        weights.bias(f"{block}.ssm_conv1d.bias", d_inner)
        weights.linear(f"{block}.ssm_x.weight", dt_rank + 2 * d_state, d_inner)
        weights.linear(f"{block}.ssm_dt.weight", d_inner, dt_rank, quantized=False)
        weights.bias(f"{block}.ssm_dt.bias", d_inner)
        weights.plain(f"{block}.ssm_a", decay)
        weights.plain(f"{block}.ssm_d", np.ones(d_inner, dtype=np.float32))
        weights.linear(f"{block}.ssm_out.weight", n_embd, d_inner, gain=layer_gain)


def _add_tokenizer(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    every = (
        "".join(piece)
        for length in itertools.count(2)
        for piece in itertools.product(letters, repeat=length)
    )
    # A piece is reached by merging pairs of pieces, so its parts come before it.
    pieces = dict.fromkeys(("\u2581", *letters, *_COMMON_PIECES.split()))
    while _BYTE_TOKENS_END + len(pieces) < n_vocab:
        pieces[next(every)] = None
    normal = list(pieces)[: n_vocab - _BYTE_TOKENS_END]
    kind = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *normal])
    writer.add_token_scores([0.0] * _BYTE_TOKENS_END + [-float(i) for i in range(len(normal))])
    writer.add_token_types(
        [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256, *[kind.NORMAL] * len(normal)]
    )
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_NOT_PER_LAYER = ("rope.dimension_sections",)
# Which layers have the window when the file does not list them: every one but each n-th
# (`load_swa_pattern` in llama.cpp's src/models).
_WINDOW_PERIOD = {"gemma2": 2, "gemma3": 6, "olmo2": 4}
_WINDOW_UNUSED = ("llama", "qwen2", "phi3", "starcoder2")
_POSITIONAL_KEYS = (
    "attention.shared_kv_layers",
    "full_attention_interval",
    "interleave_moe_layer_step",
    "leading_dense_block_count",
    "nextn_predict_layers",
)


def remove_layers(source: Path, target: Path, dropped: Collection[int]) -> Path:
    """Copy the GGUF file `source` to `target` physically without the layers `dropped` (from 0).

    The tensors of the layers that stay are renumbered without gaps and copied byte for byte,
    quantized or not; `block_count` and the arrays with one entry per layer follow; everything
    else in the metadata is copied. A sliding-window pattern that is implied by a layer's
    number is written out, so that each layer keeps its kind of attention.

    Raises ValueError if a dropped layer does not exist, none would be left, or the metadata
    names layers in a way that cannot be carried over.
    """
    reader = gguf.GGUFReader(source)
    arch = _architecture(reader)
    n_layer = int(_value(reader.fields[f"{arch}.block_count"]))
    _check_layers(dropped, n_layer)
    kept = [layer for layer in range(n_layer) if layer not in dropped]
    if not kept:
        raise ValueError(f"all {n_layer} layers of {source.name} dropped: keep at least one")
    position = {layer: new for new, layer in enumerate(kept)}

    replaced: dict[str, tuple[Any, list[GGUFValueType]]] = {
        f"{arch}.block_count": (len(kept), [GGUFValueType.UINT32])
    }
    for key, field in reader.fields.items():
        name = key.removeprefix(f"{arch}.")
        if name == key:
            continue
        if name in _POSITIONAL_KEYS and dropped and _value(field) != 0:
            raise ValueError(f"{source.name}: {key} depends on layer numbers")
        if field.types[0] is GGUFValueType.ARRAY and name not in _NOT_PER_LAYER:
            values = _value(field)
            if len(values) == n_layer:
                replaced[key] = ([values[layer] for layer in kept], field.types)
    if dropped:
        replaced |= _window_pattern(reader, arch, n_layer, kept)

    writer = _copy_metadata(reader, target, replaced)
    for tensor in reader.tensors:
        layer, rest = _split_block(tensor.name)
        if layer is None:
            _add_raw(writer, tensor, tensor.name, tensor.data)
        elif layer in position:
            _add_raw(writer, tensor, f"blk.{position[layer]}.{rest}", tensor.data)
    return _finish(writer, target)


def dequantized(source: Path, target: Path) -> Path:
    """Copy `source` to `target` with all weights as float32, as the gguf package reads them."""
    reader = gguf.GGUFReader(source)
    file_type = (int(gguf.LlamaFileType.ALL_F32), [GGUFValueType.UINT32])
    writer = _copy_metadata(reader, target, {"general.file_type": file_type})
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, dtype=np.float32))
    return _finish(writer, target)


def zero_sublayers(
    source: Path, target: Path, attention: Collection[int], mlp: Collection[int]
) -> Path:
    """Copy `source` to `target` with some sub-layers adding exactly zero to the residual stream.

    In the layers `attention` the attention output projection and its bias are zero, in the layers
    `mlp` the down projection (of every expert) and its bias; all other bytes are the source's.
    A quantized tensor gets all-zero blocks, whose scales are zero, so they dequantize to zero.
    A norm after the sub-layer keeps zero at zero as long as it has no bias (RMS norms have none).

    Raises ValueError if a layer does not exist or has no such projection.
    """
    reader = gguf.GGUFReader(source)
    n_layer = int(_value(reader.fields[f"{_architecture(reader)}.block_count"]))
    _check_layers({*attention, *mlp}, n_layer)
    names = {tensor.name for tensor in reader.tensors}
    zeroed: set[str] = set()
    for layers, parts in (
        (attention, ("attn_output",)),
        (mlp, ("ffn_down", "ffn_down_exps", "ffn_down_shexp")),
    ):
        for layer in layers:
            found = {
                f"blk.{layer}.{part}.{kind}" for part in parts for kind in ("weight", "bias")
            } & names
            if not found:
                raise ValueError(f"{source.name}: layer {layer} has no {parts[0]} tensor")
            zeroed |= found

    writer = _copy_metadata(reader, target, {})
    for tensor in reader.tensors:
        data = np.zeros_like(tensor.data) if tensor.name in zeroed else tensor.data
        _add_raw(writer, tensor, tensor.name, data)
    return _finish(writer, target)


def _architecture(reader: gguf.GGUFReader) -> str:
    return str(_value(reader.fields["general.architecture"]), "utf-8")


def _check_layers(layers: Collection[int], n_layer: int) -> None:
    if wrong := [layer for layer in layers if not 0 <= layer < n_layer]:
        raise ValueError(f"no layer {min(wrong)}: the model has layers 0 to {n_layer - 1}")


def _split_block(name: str) -> tuple[int | None, str]:
    if not name.startswith("blk."):
        return None, name
    _, number, rest = name.split(".", 2)
    return int(number), rest


def _value(field: gguf.ReaderField) -> Any:
    """A metadata value; strings stay bytes, since a vocabulary need not be valid UTF-8."""

    def one(part: Array) -> Any:
        return part.tobytes() if field.types[-1] is GGUFValueType.STRING else part.tolist()[0]

    if field.types[0] is GGUFValueType.ARRAY:
        return [one(field.parts[index]) for index in field.data]
    return one(field.parts[-1])


def _window_pattern(
    reader: gguf.GGUFReader, arch: str, n_layer: int, kept: list[int]
) -> dict[str, tuple[Any, list[GGUFValueType]]]:
    key = f"{arch}.attention.sliding_window_pattern"
    pattern = reader.fields.get(key)
    window = reader.fields.get(f"{arch}.attention.sliding_window")
    if pattern is not None and pattern.types[0] is GGUFValueType.ARRAY:
        return {}
    if arch not in _WINDOW_PERIOD:
        if pattern is not None or (window is not None and arch not in _WINDOW_UNUSED):
            raise ValueError(f"{arch}: which of its layers have a sliding window is not known here")
        return {}
    # gemma2 has a window of 4096 even where its file does not say so.
    if arch != "gemma2" and (window is None or _value(window) == 0):
        return {}
    period = _WINDOW_PERIOD[arch] if pattern is None else int(_value(pattern))
    local = [period == 0 or layer % period < period - 1 for layer in range(n_layer)]
    return {key: ([local[layer] for layer in kept], [GGUFValueType.ARRAY, GGUFValueType.BOOL])}


def _copy_metadata(
    reader: gguf.GGUFReader,
    target: Path,
    replaced: Mapping[str, tuple[Any, list[GGUFValueType]]],
) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(target, _architecture(reader))
    writer.data_alignment = int(reader.alignment)
    values = {
        key: (_value(field), field.types)
        for key, field in reader.fields.items()
        # The reader's own counts; the writer adds its architecture itself.
        if not key.startswith("GGUF.") and key != "general.architecture"
    }
    for key, (value, types) in (values | dict(replaced)).items():
        if types[0] is GGUFValueType.ARRAY and not value:
            raise ValueError(f"{key} is an empty array, which the gguf package cannot write")
        sub_type = types[-1] if types[0] is GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, types[0], sub_type)
    return writer


def _add_raw(writer: gguf.GGUFWriter, tensor: gguf.ReaderTensor, name: str, data: Array) -> None:
    # For bytes of quantized blocks the writer derives the shape from the byte shape.
    writer.add_tensor(name, data, raw_dtype=tensor.tensor_type)
