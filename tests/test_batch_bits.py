"""A token's logits have the same bits alone and in a batch, on the CPU: what makes the text of
speculative decoding equal by construction."""

from __future__ import annotations

import numpy as np
import pytest
from steps import RealModel, Tiny, assert_same_bits, decode, random_tokens

from edge_conflayers import binding
from edge_conflayers.model import Model
from edge_conflayers.session import KVType, Session

SIZES = (2, 3, 4, 5, 8, 16)
REAL = (
    "smollm2-135m",
    "gemma3-270m",
    "qwen2.5-coder-0.5b",
    pytest.param("qwen2.5-coder-1.5b", marks=pytest.mark.large),
)

pytestmark = pytest.mark.skipif(
    not binding.kernels()["enabled"], reason="this CPU or build has no kernels of ours"
)


def check(model: Model, prefix: int, *, flash: bool | None = None, kv_type: KVType = "f16") -> None:
    tokens = random_tokens(model, prefix + max(SIZES))
    rest = tokens[prefix:]
    with Session(model, n_ctx=1024, flash_attention=flash, kv_type=kv_type) as session:
        session.read(tokens[:prefix])
        alone = decode(session, rest, (1,))
        for n in SIZES:
            session.rollback(prefix)
            assert_same_bits(decode(session, rest[:n], (n,)), alone[:n])
        assert len(np.unique(alone.argmax(axis=1))) > 1


@pytest.mark.model
@pytest.mark.parametrize("prefix", [80, 600])
@pytest.mark.parametrize("name", REAL)
def test_registry_models(real_model: RealModel, name: str, prefix: int) -> None:
    check(real_model(name), prefix)


@pytest.mark.model
def test_without_flash_attention(real_model: RealModel) -> None:
    check(real_model("qwen2.5-coder-0.5b"), 600, flash=False)


@pytest.mark.model
def test_quantized_cache(real_model: RealModel) -> None:
    check(real_model("smollm2-135m"), 600, flash=True, kv_type="q8_0")


@pytest.mark.parametrize("quant", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "olmoe"])
def test_every_format_whether_our_kernels_serve_it_or_not(
    tiny: Tiny, arch: str, quant: str
) -> None:
    check(tiny(arch, quant=quant), 200)
