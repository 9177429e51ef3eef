"""A masked step against models from which the same layers were removed for real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import FAMILIES, remove_layers, zero_sublayers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import (
    Logits,
    ModelAt,
    RealModel,
    Tiny,
    TinyPath,
    assert_same_bits,
    decode,
    open_session,
    random_tokens,
    step,
    text_logits,
)

import edge_conflayers
from edge_conflayers.engine import native
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput

ROOT = Path(__file__).parents[3]
PACKAGE = Path(edge_conflayers.__file__).parent.parent  # installed, or the checkout
N_LAYER = 5
WHOLE_LAYERS = ({0}, {N_LAYER - 1}, {1, 3}, {1, 2, 3, 4}, {0, 2, 3}, {0, 1, 2, 3})
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {arch: (arch, {}) for arch in FAMILIES} | {
    "gptneox-sequential": ("gptneox", {"parallel_residual": False}),
    "stablelm-parallel": ("stablelm", {"parallel_residual": True}),
    "olmo2-window": ("olmo2", {"sliding_window": 16}),
}

Remove = Callable[[Path, Collection[int]], Model]
Zero = Callable[[Path, Collection[int], Collection[int]], Model]


@pytest.fixture(scope="module")
def removed(tmp_path_factory: pytest.TempPathFactory, model_at: ModelAt) -> Remove:
    """A copy of a model without some layers."""
    folder = tmp_path_factory.mktemp("removed")
    written: dict[Any, Path] = {}

    def model(source: Path, layers: Collection[int]) -> Model:
        key = (source, frozenset(layers))
        if key not in written:
            written[key] = remove_layers(source, folder / f"{len(written)}.gguf", layers)
        return model_at(written[key])

    return model


@pytest.fixture(scope="module")
def zeroed(tmp_path_factory: pytest.TempPathFactory, model_at: ModelAt) -> Zero:
    """A copy of a model in which some sub-layers add zero."""
    folder = tmp_path_factory.mktemp("zeroed")
    written: dict[Any, Path] = {}

    def model(source: Path, attention: Collection[int], mlp: Collection[int]) -> Model:
        key = (source, frozenset(attention), frozenset(mlp))
        if key not in written:
            target = folder / f"{len(written)}.gguf"
            written[key] = zero_sublayers(source, target, attention, mlp)
        return model_at(written[key])

    return model


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("quant", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q8_0"])
@pytest.mark.parametrize("width", [64, 256])
def test_masked_layers_equal_removed_layers_in_every_quant(
    tiny_path: TinyPath, model_at: ModelAt, removed: Remove, arch: str, quant: str, width: int
) -> None:
    source = tiny_path(arch, n_layer=N_LAYER, quant=quant, n_embd=width, n_ff=2 * width)
    tokens = random_tokens(model_at(source), 56)
    full = text_logits(model_at(source), tokens, 20)
    for layers in WHOLE_LAYERS:
        masked = text_logits(model_at(source), tokens, 20, LayerMask.layers(layers))
        assert_same_bits(masked, text_logits(removed(source, layers), tokens, 20))
        assert (masked != full).any(axis=1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_layers_in_every_architecture(
    tiny_path: TinyPath, model_at: ModelAt, removed: Remove, variant: str
) -> None:
    arch, kind = VARIANTS[variant]
    source = tiny_path(arch, n_layer=N_LAYER, **kind)
    tokens = random_tokens(model_at(source), 110)
    for layers in WHOLE_LAYERS:
        masked = text_logits(model_at(source), tokens, 80, LayerMask.layers(layers))
        assert_same_bits(masked, text_logits(removed(source, layers), tokens, 80))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("attention", "mlp"),
    [
        ({0}, set()),
        (set(), {0}),
        ({N_LAYER - 1}, set()),
        (set(), {N_LAYER - 1}),
        ({0, 2, 3}, {1, 2, 4}),
        (set(range(N_LAYER)), set()),
        (set(), set(range(N_LAYER))),
        (set(range(N_LAYER)), set(range(N_LAYER))),
    ],
    ids=lambda layers: "".join(map(str, sorted(layers))) or "none",
)
def test_sublayers_in_every_architecture(
    tiny_path: TinyPath,
    model_at: ModelAt,
    zeroed: Zero,
    variant: str,
    attention: set[int],
    mlp: set[int],
) -> None:
    """A sub-layer that adds exactly zero leaves the stream's bits as they are, so the copy with
    zeroed projections is an exact reference."""
    arch, kind = VARIANTS[variant]
    source = tiny_path(arch, n_layer=N_LAYER, **kind)
    mask = LayerMask(frozenset(attention), frozenset(mlp))
    tokens = random_tokens(model_at(source), 110)
    masked = text_logits(model_at(source), tokens, 80, mask)
    assert_same_bits(masked, text_logits(zeroed(source, attention, mlp), tokens, 80))


@pytest.mark.parametrize("arch", ["llama", "qwen2moe"])
@pytest.mark.parametrize("quant", ["q4_0", "q8_0"])
def test_sublayers_of_quantized_models(
    tiny_path: TinyPath, model_at: ModelAt, zeroed: Zero, arch: str, quant: str
) -> None:
    source = tiny_path(arch, n_layer=N_LAYER, quant=quant, n_embd=256, n_ff=256)
    mask = LayerMask(frozenset({1, 4}), frozenset({0, 1}))
    tokens = random_tokens(model_at(source), 60)
    masked = text_logits(model_at(source), tokens, 30, mask)
    assert_same_bits(masked, text_logits(zeroed(source, mask.attention, mask.mlp), tokens, 30))


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("smollm2-135m", {3, 4, 11, 17, 29}),
        ("smollm2-135m", {0, 8, 9, 10}),
        ("qwen2.5-coder-0.5b", {0, 5, 6, 12, 23}),
    ],
)
def test_masked_layers_equal_removed_layers_of_real_models(
    real_model: RealModel, tmp_path: Path, name: str, layers: set[int]
) -> None:
    model = real_model(name)
    tokens = model.tokenize("The capital of France is Paris. " * 8)[:52]
    masked = text_logits(model, tokens, 40, LayerMask.layers(layers), threads=2)
    with Model(remove_layers(model.path, tmp_path / "removed.gguf", layers)) as reference:
        assert_same_bits(masked, text_logits(reference, tokens, 40, threads=2))


@pytest.mark.model
def test_masked_sublayers_of_a_real_model(real_model: RealModel, tmp_path: Path) -> None:
    model = real_model("smollm2-135m")
    mask = LayerMask(frozenset({0, 7, 8}), frozenset({3, 8, 20}))
    tokens = model.tokenize("def merge(left, right):\n    result = []\n" * 4)[:40]
    masked = text_logits(model, tokens, 30, mask, threads=2)
    copy = zero_sublayers(model.path, tmp_path / "zeroed.gguf", mask.attention, mask.mlp)
    with Model(copy) as reference:
        assert_same_bits(masked, text_logits(reference, tokens, 30, threads=2))


def test_recurrent_architectures_are_refused_by_name(tiny: Tiny) -> None:
    model = tiny("mamba")
    with open_session(model, n_ctx=64) as session:
        with pytest.raises(BadInput, match="'mamba'"):
            session.set_mask(LayerMask.layers({1}))
        tokens = random_tokens(model, 8)
        logits = step(session, tokens)  # and goes on without one
    with open_session(model, n_ctx=64) as session:
        assert_same_bits(logits, step(session, tokens))


@pytest.mark.parametrize("layer", [-1, N_LAYER])
def test_a_layer_that_is_not_there(tiny: Tiny, layer: int) -> None:
    with (
        open_session(tiny("llama", n_layer=N_LAYER), n_ctx=64) as session,
        pytest.raises(BadInput, match=f"no layer {layer}"),
    ):
        session.set_mask(LayerMask.layers({layer}))


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize(
    "kind",
    [
        {"flash_attention": True},
        {"flash_attention": False},
        {"flash_attention": True, "kv_type": "q8_0"},
        {"flash_attention": True, "kv_type": "q4_0"},
        {"flash_attention": True, "kv_type": "f32"},
        {"flash_attention": True, "threads": 2},
    ],
    ids=lambda kind: "-".join(map(str, kind.values())),
)
def test_attention_settings(
    tiny_path: TinyPath, model_at: ModelAt, removed: Remove, arch: str, kind: dict[str, Any]
) -> None:
    """Masks under each kind of attention and cache, in a context that grows past 256 cells."""
    source = tiny_path(arch, n_layer=N_LAYER, head_dim=32)
    tokens = random_tokens(model_at(source), 280)
    for layers in ({0, 2}, {3, 4}):
        masked = text_logits(model_at(source), tokens, 240, LayerMask.layers(layers), **kind)
        assert_same_bits(masked, text_logits(removed(source, layers), tokens, 240, **kind))


def test_a_mask_may_change_from_step_to_step(
    tiny_path: TinyPath, model_at: ModelAt, zeroed: Zero
) -> None:
    """After a rollback, what was done under a mask leaves no trace."""
    model = model_at(tiny_path("llama", n_layer=N_LAYER))
    tokens = random_tokens(model, 60)
    with open_session(model, n_ctx=256) as session:
        plain = decode(session, tokens, [40, 1])
        session.rollback(40)
        for layers in ({1}, {2, 3}, {0, 1, 2, 3, 4}):
            session.set_mask(LayerMask.layers(layers))
            decode(session, tokens[40:], [1, 4])
            session.rollback(40)
        session.set_mask(LayerMask())
        assert_same_bits(decode(session, tokens[40:], [1]), plain[40:])


_MASKS = st.builds(
    LayerMask,
    attention=st.frozensets(st.integers(0, N_LAYER - 1)),
    mlp=st.frozensets(st.integers(0, N_LAYER - 1)),
)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe", "gptneox"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(masks=st.lists(st.tuples(_MASKS, st.integers(1, 40)), min_size=1, max_size=4))
def test_no_mask_after_any_masks_is_as_before(
    tiny: Tiny, arch: str, masks: list[tuple[LayerMask, int]]
) -> None:
    model = tiny(arch, n_layer=N_LAYER)
    tokens = random_tokens(model, 60)
    with open_session(model, n_ctx=256) as session:
        plain = decode(session, tokens, [20, 1, 4, 1])
        session.rollback(20)
        for mask, n in masks:
            session.set_mask(mask)
            assert np.isfinite(step(session, tokens[20 : 20 + n])).all()
            session.rollback(20)
        session.set_mask(LayerMask())
        assert_same_bits(decode(session, tokens[20:], [1, 4, 1]), plain[20:])


def upstream_library() -> Path:
    library = ROOT / "build" / "upstream" / "lib"
    if not library.is_dir():
        pytest.skip("no unpatched build in build/upstream; make it with `make upstream`")
    return library


def logits_of(
    library: Path | None, folder: Path, *arguments: str, kernels: str = "upstream-as-is"
) -> Logits:
    """What upstream_steps.py writes with this library; ours uses upstream's kernels."""
    environment = {**os.environ, "ECL_KERNELS": kernels}
    environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE), str(ROOT / "tests")])
    environment.pop(native.LIBRARY_VARIABLE, None)
    if library is not None:
        environment[native.LIBRARY_VARIABLE] = str(library)
    out = folder / f"{'ours' if library is None else 'upstream'}.npy"
    model, tokens, sizes, *rest = arguments
    program = str(ROOT / "tests" / "upstream_steps.py")
    subprocess.run(
        [sys.executable, program, model, tokens, sizes, str(out), *rest],
        env=environment,
        check=True,
        timeout=300,
    )
    logits: Logits = np.load(out)
    return logits


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
@pytest.mark.parametrize(
    ("flash", "kv_type", "quant"),
    [("on", "f16", "q4_0"), ("off", "f16", "f32"), ("on", "q8_0", "q8_0")],
)
def test_without_a_mask_every_bit_is_upstreams(
    tiny_path: TinyPath,
    model_at: ModelAt,
    tmp_path: Path,
    arch: str,
    flash: str,
    kv_type: str,
    quant: str,
) -> None:
    library = upstream_library()
    source = tiny_path(arch, n_layer=3, n_embd=128, quant=quant)
    sizes = [230, *[1] * 20, *range(2, 9), 1, 1, 40, 1]
    np.save(tmp_path / "tokens.npy", random_tokens(model_at(source), sum(sizes)))
    arguments = [str(source), str(tmp_path / "tokens.npy"), ",".join(map(str, sizes))]
    arguments += [flash, kv_type, "2"]
    ours = logits_of(None, tmp_path, *arguments)
    assert_same_bits(ours, logits_of(library, tmp_path, *arguments))


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
@pytest.mark.parametrize(("flash", "quant"), [("on", "q8_0"), ("off", "bf16")])
def test_one_token_steps_and_prompts_stay_upstreams_where_batches_follow_them(
    tiny_path: TinyPath, model_at: ModelAt, tmp_path: Path, arch: str, flash: str, quant: str
) -> None:
    library = upstream_library()
    source = tiny_path(arch, n_layer=3, n_embd=128, quant=quant)
    tokens = tmp_path / "tokens.npy"
    single, batched = ",".join(["500", *["1"] * 30]), "500,1,4,8,16,1"
    np.save(tokens, random_tokens(model_at(source), 530))

    def logits(library: Path | None, sizes: str) -> Logits:
        arguments = [str(source), str(tokens), sizes, flash, "f16", "2"]
        return logits_of(library, tmp_path, *arguments, kernels="upstream")

    theirs = logits(library, single)
    assert_same_bits(logits(None, single), theirs)
    assert_same_bits(logits(None, batched), theirs)


@pytest.mark.model
def test_without_a_mask_every_bit_is_upstreams_on_a_real_model(
    real_model: RealModel, tmp_path: Path
) -> None:
    library = upstream_library()
    model = real_model("smollm2-135m")
    sizes = [40, *[1] * 6, *range(2, 9), 1]
    tokens = model.tokenize(Path(__file__).read_text(encoding="utf-8"))[: sum(sizes)]
    np.save(tmp_path / "tokens.npy", tokens)
    arguments = [str(model.path), str(tmp_path / "tokens.npy"), ",".join(map(str, sizes))]
    arguments += ["on", "f16", "2"]
    ours = logits_of(None, tmp_path, *arguments)
    assert_same_bits(ours, logits_of(library, tmp_path, *arguments))
