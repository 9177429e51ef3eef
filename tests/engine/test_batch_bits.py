"""A token's logits have the same bits alone and in a batch, on the CPU: what makes the text of
speculative decoding equal by construction, with our kernels and with upstream's."""

from __future__ import annotations

import numpy as np
import pytest
from gguf_models import FAMILIES
from steps import RealModel, TinyPath, assert_same_bits, decode, random_tokens

from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import KVType, Session

SIZES = (2, 3, 4, 5, 8, 16)
REAL = (
    "smollm2-135m",
    "gemma3-270m",
    "qwen2.5-coder-0.5b",
    pytest.param("qwen2.5-coder-1.5b", marks=pytest.mark.large),
)

pytestmark = pytest.mark.skipif(
    not binding.kernels()["exact"], reason="this build has no kernels of ours"
)


@pytest.fixture(params=["ecl", "upstream"])
def kernels(request: pytest.FixtureRequest) -> KernelChoice:
    """The kernels of the test's models."""
    return request.param  # type: ignore[no-any-return]


def check(
    model: Model,
    prefix: int,
    *,
    sizes: tuple[int, ...] = SIZES,
    flash: bool | None = None,
    kv_type: KVType = "f16",
    threads: int = 2,
) -> None:
    tokens = random_tokens(model, prefix + max(sizes))
    rest = tokens[prefix:]
    settings = {"n_ctx": 1024, "flash_attention": flash, "kv_type": kv_type, "threads": threads}
    with Session(model, **settings) as session:
        session.read(tokens[:prefix])
        alone = decode(session, rest, (1,))
        for n in sizes:
            session.rollback(prefix)
            assert_same_bits(decode(session, rest[:n], (n,)), alone[:n])
        assert len(np.unique(alone.argmax(axis=1))) > 1


@pytest.mark.model
@pytest.mark.parametrize("prefix", [80, 600])
@pytest.mark.parametrize("name", REAL)
def test_registry_models(real_model: RealModel, name: str, prefix: int) -> None:
    check(real_model(name), prefix)


@pytest.mark.model
@pytest.mark.parametrize("flash", [True, False])
def test_a_registry_model_with_upstreams_kernels(real_model: RealModel, flash: bool) -> None:
    path = real_model("smollm2-135m").path
    with Model(path, kernels="upstream") as model:
        check(model, 600, sizes=(2, 5, 8), flash=flash)


@pytest.mark.model
def test_without_flash_attention(real_model: RealModel) -> None:
    check(real_model("qwen2.5-coder-0.5b"), 600, flash=False)


@pytest.mark.model
def test_quantized_cache(real_model: RealModel) -> None:
    check(real_model("smollm2-135m"), 600, flash=True, kv_type="q8_0")


@pytest.mark.parametrize("quant", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "olmoe"])
def test_every_format_whether_our_kernels_serve_it_or_not(
    tiny_path: TinyPath, kernels: KernelChoice, arch: str, quant: str
) -> None:
    with Model(tiny_path(arch, quant=quant), kernels=kernels) as model:
        check(model, 200)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("arch", FAMILIES)
def test_every_architecture(
    tiny_path: TinyPath, kernels: KernelChoice, arch: str, flash: bool
) -> None:
    with Model(tiny_path(arch, quant="q8_0"), kernels=kernels) as model:
        check(model, 40, sizes=(2, 4, 32), flash=flash)


@pytest.mark.parametrize("kv_type", ["f16", "f32", "q8_0"])
@pytest.mark.parametrize("prefix", [509, 765])
def test_where_a_batch_makes_attention_read_more_of_the_cache(
    tiny_path: TinyPath, kernels: KernelChoice, prefix: int, kv_type: KVType
) -> None:
    """A step reads the cache up to the next 256 cells; upstream shares them out over threads."""
    with Model(tiny_path("llama", quant="q8_0", n_embd=128), kernels=kernels) as model:
        check(model, prefix, flash=True, kv_type=kv_type)


@pytest.mark.parametrize("prefix", [509, 1276, 1533])
def test_where_a_sliding_windows_cells_go_round(
    tiny_path: TinyPath, kernels: KernelChoice, prefix: int
) -> None:
    """The window's 768 cells are a ring; the batch crosses from 256 of them into the next."""
    path = tiny_path("gemma3", quant="q8_0", sliding_window=300)
    with (
        Model(path, kernels=kernels) as model,
        Session(model, n_ctx=2048, flash_attention=True, threads=2, batch=256) as session,
    ):
        tokens = random_tokens(model, prefix + 8)
        session.read(tokens[:prefix])
        alone = decode(session, tokens[prefix:], (1,))
        session.rollback(prefix)
        assert_same_bits(decode(session, tokens[prefix:], (8,)), alone)


def test_upstream_as_it_is_is_not_changed(tiny_path: TinyPath) -> None:
    """What `cost --kernels upstream` measures: here bits may depend on the batch."""
    assert not binding.kernels("upstream-as-is")["exact"]
    with (
        Model(tiny_path("llama", quant="q8_0"), kernels="upstream-as-is") as model,
        pytest.raises(AssertionError),
    ):
        for flash in (True, False):
            check(model, 600, flash=flash)
