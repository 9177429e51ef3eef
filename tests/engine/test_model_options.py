"""LoRA adapters, positions and cache types: what they do, and that drafts change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import pytest
from gguf_models import write_tiny_model
from lora import ALPHA, RANK, write_lora
from steps import Logits, TinyPath, assert_same_bits, decode, open_session, random_tokens, step

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_options import KVType, Lora, ModelOptions
from edge_conflayers.errors import BadInput

POSITIONS: dict[str, dict[str, Any]] = {
    "linear": {"rope_scaling_type": "linear", "rope_freq_scale": 0.5},
    "base": {"rope_freq_base": 50_000.0},
    "yarn": {"rope_scaling_type": "yarn", "rope_freq_scale": 0.25},
    "yarn-orig-ctx": {"rope_scaling_type": "yarn", "rope_freq_scale": 0.25, "yarn_orig_ctx": 128},
    "yarn-ext-factor": {"rope_freq_scale": 0.25, "yarn_ext_factor": 0.5, "yarn_orig_ctx": 64},
    # llama.cpp computes it where there is extrapolation.
    "yarn-attn-factor": {"yarn_ext_factor": 0.0, "yarn_attn_factor": 1.5},
    "yarn-betas": {
        **{"rope_scaling_type": "yarn", "rope_freq_scale": 0.25, "yarn_orig_ctx": 128},
        **{"yarn_beta_fast": 8.0, "yarn_beta_slow": 2.0},
    },
}
TYPES = get_args(KVType)


def last_logits(path: Path, options: ModelOptions | None = None) -> Logits:
    with Model(path, options=options) as model, open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 40))
        last: Logits = session.logits(-1).copy()
        return last


def test_an_adapter_changes_the_weights_by_its_product(tmp_path: Path) -> None:
    base, merged = tmp_path / "base.gguf", tmp_path / "merged.gguf"
    adapter = tmp_path / "lora.gguf"
    for path in (base, merged):
        write_tiny_model(path, "llama", layer_gain=0.1)
    changes = write_lora(adapter, base)
    for tensor in gguf.GGUFReader(merged, "r+").tensors:
        if tensor.name in changes:
            a, b = changes[tensor.name]
            tensor.data[:] += ALPHA / RANK * 0.5 * b @ a

    def found(*loras: Lora) -> Logits:
        return last_logits(base, ModelOptions(lora=loras, type_k="f32", type_v="f32"))

    plain, expected = found(), last_logits(merged, ModelOptions(type_k="f32", type_v="f32"))
    assert np.abs(expected - plain).max() > 0.1  # fifty times the rounding
    np.testing.assert_allclose(found(Lora(adapter, 0.5)), expected, atol=2e-3)
    np.testing.assert_allclose(found(Lora(adapter, 0.2), Lora(adapter, 0.3)), expected, atol=2e-3)
    assert np.array_equal(found(Lora(adapter, 0.0)), plain)


@pytest.mark.parametrize("options", POSITIONS.values(), ids=POSITIONS)
def test_positions_are_scaled(tiny_path: TinyPath, options: dict[str, Any]) -> None:
    path = tiny_path("llama")
    changed = last_logits(path, ModelOptions(**options))
    assert np.isfinite(changed).all()
    assert np.abs(changed - last_logits(path)).max() > 1e-3


def test_a_scale_is_that_of_a_file_that_has_it(tiny_path: TinyPath) -> None:
    """The same numbers as keys of the file and as options."""
    scaled = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0, "rope.freq_base": 3000.0}
    of_file = tiny_path("llama", metadata=tuple(scaled.items()))
    options = ModelOptions(rope_scaling_type="linear", rope_freq_scale=0.5, rope_freq_base=3000.0)
    assert_same_bits(last_logits(tiny_path("llama"), options), last_logits(of_file))
    unscaled = ModelOptions(rope_scaling_type="none", rope_freq_base=10_000.0)
    assert_same_bits(last_logits(of_file, unscaled), last_logits(tiny_path("llama")))


def test_yarn_lengthens_what_the_model_is_made_for(tiny_path: TinyPath) -> None:
    path = tiny_path("llama", context_length=1000)
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({}, 1000),
        ({"rope_scaling_type": "linear", "rope_freq_scale": 0.25}, 1000),
        ({"rope_scaling_type": "yarn", "rope_freq_scale": 0.25}, 4000),
        ({"rope_scaling_type": "yarn", "rope_freq_scale": 0.25, "yarn_orig_ctx": 500}, 2000),
    )
    for options, trained in cases:
        with Model(path, options=ModelOptions(**options)) as model:
            for _ in range(2):  # llama.cpp changes its own number with the first context
                with model.open_session(n_ctx=0, threads=1) as session:
                    assert session.n_ctx == model.n_ctx_train == trained


def check_bits(model: Model, prefix: int, sizes: tuple[int, ...] = (2, 5, 8, 16)) -> None:
    tokens = random_tokens(model, prefix + max(sizes))
    rest = tokens[prefix:]
    with open_session(model, n_ctx=1024, threads=2) as session:
        assert session.verifies_drafts
        session.read(tokens[:prefix])
        alone = decode(session, rest, (1,))
        for n in sizes:
            session.rollback(prefix)
            assert_same_bits(step(session, rest[:n]), alone[:n])


@pytest.mark.parametrize("kernels", ["ecl", "upstream"])
@pytest.mark.parametrize(
    ("type_k", "type_v"),
    [*zip(TYPES, TYPES, strict=True), *zip(TYPES, [*TYPES[1:], TYPES[0]], strict=True)],
)
def test_any_cache_keeps_the_bits_of_one_token_steps(
    tiny_path: TinyPath, type_k: KVType, type_v: KVType, kernels: Any
) -> None:
    """Past 512 cells, where upstream's attention over one token takes another path."""
    path = tiny_path("llama", n_embd=128, quant="q8_0")
    with Model(path, kernels=kernels, options=ModelOptions(type_k=type_k, type_v=type_v)) as model:
        check_bits(model, 508)
        with open_session(model, n_ctx=64) as session:
            assert session.kv_type == (type_k if type_k == type_v else f"{type_k} {type_v}")


@pytest.mark.parametrize("kernels", ["ecl", "upstream"])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "olmoe"])
def test_adapters_and_positions_keep_the_bits_of_one_token_steps(
    tiny_path: TinyPath, tmp_path: Path, arch: str, kernels: Any
) -> None:
    path = tiny_path(arch, n_embd=128, quant="q8_0")
    write_lora(tmp_path / "lora.gguf", path, matrices=("attn_q.weight", "attn_v.weight"))
    options = ModelOptions(
        lora=(Lora(tmp_path / "lora.gguf"),), **POSITIONS["yarn"], type_k="q8_0", type_v="q4_0"
    )
    with Model(path, kernels=kernels, options=options) as model:
        check_bits(model, 200)


def test_a_smaller_cache_takes_less_memory(tiny_path: TinyPath) -> None:
    sizes = {}
    for type_k, type_v in (("f16", "f16"), ("q8_0", "q8_0"), ("f32", "q4_0")):
        options = ModelOptions(type_k=type_k, type_v=type_v)  # type: ignore[arg-type]
        with Model(tiny_path("llama", n_embd=128), options=options) as model:
            sizes[type_k, type_v] = model.kv_value_bytes
    assert sizes == {
        ("f16", "f16"): 2.0,
        ("q8_0", "q8_0"): 34 / 32,
        ("f32", "q4_0"): (4 + 18 / 32) / 2,
    }


def test_what_does_not_go_with_the_model_is_refused(tiny_path: TinyPath, tmp_path: Path) -> None:
    path, file = tiny_path("llama"), tmp_path / "lora.gguf"

    def refused(why: str, *, options: ModelOptions | None = None, model: Path = path) -> None:
        with pytest.raises(BadInput, match=why) as error:
            last_logits(model, options or ModelOptions(lora=(Lora(file),)))
        assert "\n" not in str(error.value)

    refused("lora.gguf does not exist")
    file.write_text("no adapter")
    refused("not a GGUF file")
    refused("is no LoRA adapter", options=ModelOptions(lora=(Lora(path),)))
    write_lora(file, path, architecture="qwen2")
    refused("for models of architecture 'qwen2', not 'llama'")
    write_lora(file, path, kind="control")
    refused("an adapter of type 'control'")
    write_lora(file, tiny_path("llama", n_embd=128))
    refused("cannot be loaded: tensor 'blk.0.* has incorrect shape .*give one that was made for")
    write_lora(file, tiny_path("llama", n_layer=6))
    refused("'blk.4.*' does not exist in base model")
    whole = file.read_bytes()
    write_lora(file, path)
    file.write_bytes(file.read_bytes()[:-2000])
    refused("cannot be loaded: ")
    file.write_bytes(whole[:40])
    refused("damaged in its header")
    refused(
        "no rotary positions to scale; leave out --rope-scaling, --rope-freq-scale",
        options=ModelOptions(**POSITIONS["linear"]),
        model=tiny_path("gpt2"),
    )
    refused("block size 32 does not divide n_embd_head_k=16", options=ModelOptions(type_k="q8_0"))


@pytest.mark.parametrize(
    "given",
    [
        {"type_k": "q2_k"},
        {"type_v": "int8"},
        {"rope_scaling_type": "ntk"},
        {"rope_freq_base": 0.5},
        {"rope_freq_scale": -1.0},
        {"rope_freq_scale": float("nan")},
        {"yarn_ext_factor": -2.0},
        {"yarn_beta_fast": float("inf")},
        {"yarn_orig_ctx": -1},
    ],
    ids=json.dumps,
)
def test_what_is_out_of_range_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        ModelOptions(**given)
    with pytest.raises(BadInput):
        Lora(Path("a"), float("nan"))


def test_what_changes_the_model_is_told_apart(tiny_path: TinyPath, tmp_path: Path) -> None:
    path = tiny_path("llama")
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    write_lora(one, path)
    write_lora(other, path, seed=1)
    adapters = ((Lora(one),), (Lora(one, 0.5),), (Lora(other),), (Lora(one), Lora(other)))
    changes = [ModelOptions(lora=each).changes for each in adapters]
    changes += [ModelOptions(**each).changes for each in POSITIONS.values()]
    assert len({*changes, ""}) == len(changes) + 1
    assert ModelOptions(type_k="q8_0").changes == ModelOptions().changes == ""
    assert ModelOptions(lora=(Lora(one),), type_k="q8_0").flags == ["--lora", "--cache-type-k"]
    one.rename(tmp_path / "renamed.gguf")
    assert ModelOptions(lora=(Lora(tmp_path / "renamed.gguf"),)).changes == changes[0]
