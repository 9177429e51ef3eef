"""The helper's files, read back with the `gguf` reader alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType
from gguf_models import (
    ARCHITECTURES,
    FAMILIES,
    QUANTS,
    RECURRENT,
    remove_layers,
    write_tiny_model,
    zero_sublayers,
)

DENSE_GATED = {"ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}
SEPARATE_QKV = {f"attn_{part}.weight" for part in ("q", "k", "v", "output")}
NORMS_WITH_BIAS = {f"{part}_norm.{kind}" for part in ("attn", "ffn") for kind in ("weight", "bias")}
FUSED_WITH_BIASES = {
    f"{part}.{kind}"
    for part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    for kind in ("weight", "bias")
}
BLOCK_TENSORS = {
    "llama": SEPARATE_QKV | DENSE_GATED | {"attn_norm.weight"},
    "gemma3": SEPARATE_QKV
    | DENSE_GATED
    | {"attn_norm.weight", "attn_q_norm.weight", "attn_k_norm.weight"}
    | {"post_attention_norm.weight", "post_ffw_norm.weight"},
    "gptneox": FUSED_WITH_BIASES | NORMS_WITH_BIAS,
    "falcon": {"attn_norm.weight", "attn_norm.bias", "attn_qkv.weight", "attn_output.weight"}
    | {"ffn_up.weight", "ffn_down.weight"},
    "qwen2moe": SEPARATE_QKV
    | {"attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_norm.weight", "ffn_norm.weight"}
    | {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"}
    | {
        f"ffn_{part}_{kind}.weight" for part in ("gate", "up", "down") for kind in ("exps", "shexp")
    },
}
K_QUANTS = [GGMLQuantizationType[f"Q{bits}_K"] for bits in (2, 3, 4, 5, 6)]


def tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def metadata(path: Path) -> dict[str, tuple[list[GGUFValueType], Any]]:
    """Every key's type and raw content, so that equality means equal bytes."""
    return {
        key: (field.types, [field.parts[index].tobytes() for index in field.data])
        for key, field in gguf.GGUFReader(path).fields.items()
        if not key.startswith("GGUF.")
    }


def number(path: Path, key: str) -> int:
    return int(gguf.GGUFReader(path).fields[key].parts[-1][0])


def array(path: Path, key: str) -> list[Any]:
    field = gguf.GGUFReader(path).fields[key]
    return [field.parts[index].tolist()[0] for index in field.data]


def same_tensor(one: gguf.ReaderTensor, other: gguf.ReaderTensor) -> bool:
    return (
        one.tensor_type == other.tensor_type
        and one.shape.tolist() == other.shape.tolist()
        and one.data.tobytes() == other.data.tobytes()
    )


def write_raw_model(
    path: Path,
    arch: str,
    keys: dict[str, tuple[Any, GGUFValueType, GGUFValueType | None]],
    *,
    n_layer: int,
    quant: GGMLQuantizationType = GGMLQuantizationType.Q4_K,
    alignment: int = 32,
) -> Path:
    """Write a file of random quantized bytes: readable and copyable, not meant to run."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_custom_alignment(alignment)
    writer.add_block_count(n_layer)
    for key, (value, kind, sub_type) in keys.items():
        writer.add_key_value(key, value, kind, sub_type)
    rng = np.random.default_rng(0)
    row_bytes = gguf.quant_shape_to_byte_shape((256,), quant)[0]
    for layer in range(n_layer):
        for part in ("attn_output", "ffn_down"):
            data = rng.integers(0, 256, (3, row_bytes), dtype=np.uint8)
            writer.add_tensor(f"blk.{layer}.{part}.weight", data, raw_dtype=quant)
    writer.add_tensor("output_norm.weight", np.ones(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_writes_the_layers_asked_for(tmp_path: Path, arch: str) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", arch, n_layer=3, context_length=64)
    found = tensors(path)
    assert bytes(metadata(path)["general.architecture"][1][0]) == arch.encode()
    assert number(path, f"{arch}.block_count") == 3
    per_layer = [{n.split(".", 2)[2] for n in found if n.startswith(f"blk.{i}.")} for i in range(4)]
    assert per_layer[0] and per_layer[0] == per_layer[1] == per_layer[2]
    assert not per_layer[3]
    for tensor in found.values():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all()
        # A recurrent layer's fixed tensors aside, nothing is constant.
        assert values.std() > 0 or arch in RECURRENT


@pytest.mark.parametrize("arch", BLOCK_TENSORS)
def test_a_layer_has_exactly_the_tensors_llama_cpp_loads(tmp_path: Path, arch: str) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", arch, n_layer=1)
    found = {name.removeprefix("blk.0.") for name in tensors(path) if name.startswith("blk.0.")}
    assert found == BLOCK_TENSORS[arch]


@pytest.mark.parametrize(
    ("arch", "parallel", "has_ffn_norm", "flag"),
    [
        ("gptneox", True, True, 1),
        ("gptneox", False, True, 0),
        ("stablelm", True, False, None),
        ("stablelm", False, True, None),
    ],
)
def test_parallel_residual(
    tmp_path: Path, arch: str, parallel: bool, has_ffn_norm: bool, flag: int | None
) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", arch, parallel_residual=parallel)
    assert ("blk.0.ffn_norm.weight" in tensors(path)) is has_ffn_norm
    key = f"{arch}.use_parallel_residual"
    assert (number(path, key) if key in metadata(path) else None) == flag


def test_sizes_follow_the_arguments(tmp_path: Path) -> None:
    path = write_tiny_model(
        tmp_path / "m.gguf",
        "llama",
        n_layer=2,
        n_embd=96,
        n_head=6,
        n_head_kv=3,
        head_dim=32,
        n_ff=160,
        n_vocab=400,
    )
    shapes = {name: tensor.shape.tolist() for name, tensor in tensors(path).items()}
    assert shapes["token_embd.weight"] == [96, 400]
    assert shapes["output.weight"] == [96, 400]
    assert shapes["blk.1.attn_q.weight"] == [96, 192]
    assert shapes["blk.1.attn_k.weight"] == [96, 96]
    assert shapes["blk.1.attn_output.weight"] == [192, 96]
    assert shapes["blk.1.ffn_down.weight"] == [160, 96]
    assert number(path, "llama.attention.head_count_kv") == 3
    assert number(path, "llama.attention.key_length") == 32


@pytest.mark.parametrize(
    ("arch", "asked", "window"),
    [("gemma2", None, 64), ("gemma3", 16, 16), ("olmo2", 32, 32), ("olmo2", None, None)],
)
def test_sliding_window(tmp_path: Path, arch: str, asked: int | None, window: int | None) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", arch, n_layer=5, sliding_window=asked)
    key = f"{arch}.attention.sliding_window"
    if window is None:
        assert key not in metadata(path)
    else:
        assert number(path, key) == window
        assert array(path, f"{key}_pattern") == [True, False, True, False, True]


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    one = write_tiny_model(tmp_path / "one.gguf", "qwen2", seed=7).read_bytes()
    assert write_tiny_model(tmp_path / "again.gguf", "qwen2", seed=7).read_bytes() == one
    assert write_tiny_model(tmp_path / "other.gguf", "qwen2", seed=8).read_bytes() != one


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_layer_gain_scales_what_a_layer_adds(tmp_path: Path, arch: str) -> None:
    full = tensors(write_tiny_model(tmp_path / "a.gguf", arch, n_layer=1))
    small = tensors(write_tiny_model(tmp_path / "b.gguf", arch, n_layer=1, layer_gain=0.25))
    scaled = {
        name for name in full if np.allclose(small[name].data, full[name].data * 0.25, rtol=1e-4)
    }
    if arch == "gemma3":
        assert scaled == {"blk.0.post_attention_norm.weight", "blk.0.post_ffw_norm.weight"}
    else:
        assert scaled == {"blk.0.attn_output.weight", "blk.0.ffn_down.weight"}


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("arch", ["llama", "qwen2moe"])
def test_quantized_matrices_hold_the_same_weights(tmp_path: Path, arch: str, quant: str) -> None:
    exact = tensors(write_tiny_model(tmp_path / "f32.gguf", arch, n_layer=1))
    found = tensors(write_tiny_model(tmp_path / "q.gguf", arch, n_layer=1, quant=quant))
    assert found.keys() == exact.keys()
    for name, tensor in found.items():
        keeps_f32 = "norm" in name or name.endswith(".bias") or "gate_inp" in name
        assert tensor.tensor_type == (QUANTS["f32"] if keeps_f32 else QUANTS[quant]), name
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        difference = np.abs(values - exact[name].data)
        assert difference.mean() <= 0.12 * np.abs(exact[name].data).mean(), name


def test_the_tokenizer_covers_every_byte(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", "llama", n_layer=1, n_vocab=1000)
    tokens = [text.decode() for text in metadata(path)["tokenizer.ggml.tokens"][1]]
    assert len(tokens) == len(set(tokens)) == number(path, "llama.vocab_size") == 1000
    assert tokens[:3] == ["<unk>", "<s>", "</s>"]
    assert tokens[3:259] == [f"<0x{byte:02X}>" for byte in range(256)]
    types = array(path, "tokenizer.ggml.token_type")
    assert types == [2, 3, 3] + [6] * 256 + [1] * 741
    for piece in tokens[259:]:
        parts = {(piece[:cut], piece[cut:]) for cut in range(1, len(piece))}
        assert not parts or any(a in tokens and b in tokens for a, b in parts), piece
    assert len(array(path, "tokenizer.ggml.scores")) == 1000
    assert b"add_generation_prompt" in metadata(path)["tokenizer.chat_template"][1][0]


@pytest.mark.parametrize(
    ("arch", "arguments", "complaint"),
    [
        ("bert", {}, "not one of llama"),
        ("llama", {"quant": "q4_k"}, "quant q4_k: not one of f32"),
        ("llama", {"n_vocab": 259}, "n_vocab 259"),
        ("llama", {"n_head_kv": 3}, "do not go together"),
        ("olmoe", {"n_head_kv": 2}, "do not go together"),
        ("llama", {"n_embd": 66}, "multiple of n_head"),
        ("phi3", {"head_dim": 32}, "head_dim must be"),
        ("gptneox", {"n_embd": 24}, "odd number of rotary"),
        ("llama", {"n_embd": 80, "quant": "q8_0"}, "n_embd 80: must be a multiple of 32"),
        ("llama", {"n_ff": 100, "quant": "q4_0"}, "n_ff 100: must be a multiple of 32"),
        ("mamba", {"n_embd": 48, "quant": "q8_0"}, "n_embd 48: must be a multiple of 32"),
        ("llama", {"sliding_window": 8}, "no sliding window"),
        ("llama", {"parallel_residual": True}, "parallel_residual=True"),
        ("falcon", {"parallel_residual": False}, "parallel_residual=False"),
        ("mamba", {"parallel_residual": False}, "neither"),
    ],
)
def test_what_llama_cpp_would_not_load_is_refused(
    tmp_path: Path, arch: str, arguments: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(ValueError, match=re.escape(complaint)):
        write_tiny_model(path, arch, **arguments)
    assert not path.exists()


@pytest.mark.parametrize("quant", ["f32", "q4_0"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_remove_layers_keeps_every_other_byte(tmp_path: Path, arch: str, quant: str) -> None:
    source = write_tiny_model(tmp_path / "s.gguf", arch, n_layer=5, quant=quant, context_length=64)
    target = remove_layers(source, tmp_path / "t.gguf", {0, 3})
    before, after = tensors(source), tensors(target)
    origin = {0: 1, 1: 2, 2: 4}
    expected = {}
    for name, tensor in before.items():
        if not name.startswith("blk."):
            expected[name] = tensor
    for new, old in origin.items():
        prefix = f"blk.{old}."
        for name, tensor in before.items():
            if name.startswith(prefix):
                expected[f"blk.{new}.{name.removeprefix(prefix)}"] = tensor
    assert after.keys() == expected.keys()
    assert all(same_tensor(after[name], expected[name]) for name in after)

    assert number(target, f"{arch}.block_count") == 3
    changed = {f"{arch}.block_count", f"{arch}.attention.sliding_window_pattern"}
    old_keys, new_keys = metadata(source), metadata(target)
    assert list(old_keys) == list(new_keys)
    assert all(old_keys[key] == new_keys[key] for key in old_keys.keys() - changed)
    if FAMILIES.get(arch) and FAMILIES[arch].sliding_window == "always":
        assert array(source, f"{arch}.attention.sliding_window_pattern")[::2] == [True] * 3
        assert array(target, f"{arch}.attention.sliding_window_pattern") == [False, True, True]


def test_removing_nothing_gives_the_same_file(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "s.gguf", "gemma3", quant="q5_1")
    target = remove_layers(source, tmp_path / "t.gguf", set())
    assert target.read_bytes() == source.read_bytes()


def test_remove_layers_copies_k_quants_and_odd_metadata(tmp_path: Path) -> None:
    strings = (GGUFValueType.ARRAY, GGUFValueType.STRING)
    source = write_raw_model(
        tmp_path / "s.gguf",
        "llama",
        {
            "tokenizer.ggml.tokens": ([b"ok", b"\xff\xfe", b"", "é".encode()], *strings),
            "llama.attention.head_count": (
                [1, 2, 3, 4],
                GGUFValueType.ARRAY,
                GGUFValueType.UINT32,
            ),
            "llama.rope.dimension_sections": (
                [8, 4, 2, 1],
                GGUFValueType.ARRAY,
                GGUFValueType.INT32,
            ),
            "llama.long": (2**40, GGUFValueType.UINT64, None),
            "general.empty": ("", GGUFValueType.STRING, None),
            "general.ratio": (0.1, GGUFValueType.FLOAT32, None),
        },
        n_layer=4,
        quant=GGMLQuantizationType.Q6_K,
        alignment=64,
    )
    target = remove_layers(source, tmp_path / "t.gguf", {1})
    before, after = metadata(source), metadata(target)
    assert before.pop("llama.block_count") != after.pop("llama.block_count")
    assert before.pop("llama.attention.head_count")[0] == after.pop("llama.attention.head_count")[0]
    assert before == after
    assert array(target, "llama.attention.head_count") == [1, 3, 4]
    old, new = tensors(source), tensors(target)
    assert len(new) == len(old) - 2
    assert same_tensor(old["blk.3.ffn_down.weight"], new["blk.2.ffn_down.weight"])
    assert new["blk.2.ffn_down.weight"].tensor_type == GGMLQuantizationType.Q6_K
    assert all(tensor.data_offset % 64 == 0 for tensor in new.values())


@pytest.mark.parametrize(
    ("arch", "window", "pattern", "expected"),
    [
        # gemma3: all but each 6th layer has the window; layers 1, 3, 5, 6 and 7 stay.
        ("gemma3", 512, None, [1, 1, 0, 1, 1]),
        ("gemma3", 512, 4, [1, 0, 1, 1, 0]),
        ("gemma2", None, None, [0, 0, 0, 1, 0]),
        ("gemma3", 0, None, None),
        ("olmo2", None, None, None),
        ("phi3", 512, None, None),
    ],
)
def test_an_implied_window_pattern_is_written_out(
    tmp_path: Path,
    arch: str,
    window: int | None,
    pattern: int | None,
    expected: list[int] | None,
) -> None:
    key = f"{arch}.attention.sliding_window"
    given = {key: window, f"{key}_pattern": pattern}
    source = write_raw_model(
        tmp_path / "s.gguf",
        arch,
        {k: (v, GGUFValueType.UINT32, None) for k, v in given.items() if v is not None},
        n_layer=8,
    )
    target = remove_layers(source, tmp_path / "t.gguf", {0, 2, 4})
    if expected is None:
        assert f"{key}_pattern" not in metadata(target)
    else:
        assert array(target, f"{key}_pattern") == [bool(kept) for kept in expected]


@pytest.mark.parametrize(
    ("arch", "keys", "dropped", "complaint"),
    [
        ("llama", {}, {4}, "no layer 4: the model has layers 0 to 3"),
        ("llama", {}, {-1}, "no layer -1"),
        ("llama", {}, {0, 1, 2, 3}, "keep at least one"),
        ("deepseek2", {"deepseek2.leading_dense_block_count": 1}, {2}, "depends on layer numbers"),
        ("cohere2", {"cohere2.attention.sliding_window": 64}, {2}, "not known here"),
    ],
)
def test_remove_layers_refuses(
    tmp_path: Path, arch: str, keys: dict[str, int], dropped: set[int], complaint: str
) -> None:
    source = write_raw_model(
        tmp_path / "s.gguf",
        arch,
        {key: (value, GGUFValueType.UINT32, None) for key, value in keys.items()},
        n_layer=4,
    )
    target = tmp_path / "t.gguf"
    with pytest.raises(ValueError, match=complaint):
        remove_layers(source, target, dropped)
    assert not target.exists()


@pytest.mark.parametrize("quant", ["f32", "bf16", "q4_0", "q8_0"])
@pytest.mark.parametrize("arch", FAMILIES)
def test_zero_sublayers_zeroes_those_projections_only(
    tmp_path: Path, arch: str, quant: str
) -> None:
    source = write_tiny_model(tmp_path / "s.gguf", arch, n_layer=3, quant=quant, context_length=64)
    target = zero_sublayers(source, tmp_path / "t.gguf", attention={0, 2}, mlp={1})
    assert metadata(source) == metadata(target)
    before, after = tensors(source), tensors(target)
    assert list(before) == list(after)
    zeroed = re.compile(r"blk\.([02]\.attn_output|1\.ffn_down(_exps|_shexp)?)\.(weight|bias)")
    seen = set()
    for name, tensor in after.items():
        if zeroed.fullmatch(name):
            seen.add(name.split(".", 2)[1])
            assert tensor.tensor_type == before[name].tensor_type
            assert not gguf.quants.dequantize(tensor.data, tensor.tensor_type).any(), name
            assert before[name].data.any()
        else:
            assert same_tensor(tensor, before[name]), name
    assert seen == {"0", "1", "2"}


@pytest.mark.parametrize("quant", K_QUANTS, ids=lambda quant: str(quant.name))
def test_zeroed_k_quants_read_as_zero(tmp_path: Path, quant: GGMLQuantizationType) -> None:
    source = write_raw_model(tmp_path / "s.gguf", "llama", {}, n_layer=2, quant=quant)
    found = tensors(zero_sublayers(source, tmp_path / "t.gguf", attention=set(), mlp={1}))
    values = gguf.quants.dequantize(found["blk.1.ffn_down.weight"].data, quant)
    assert values.shape == (3, 256)
    assert not values.any()
    assert found["blk.0.ffn_down.weight"].data.any()


def test_zero_sublayers_refuses_layers_without_the_projection(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "s.gguf", "mamba", n_layer=2)
    target = tmp_path / "t.gguf"
    with pytest.raises(ValueError, match="layer 1 has no attn_output tensor"):
        zero_sublayers(source, target, attention={1}, mlp=set())
    with pytest.raises(ValueError, match="no layer 2"):
        zero_sublayers(source, target, attention=set(), mlp={2})
    assert not target.exists()
