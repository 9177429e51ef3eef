"""Which caches can be had, and how large they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from steps import Tiny, open_session

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.engine.session.kv_cache import context_size, kv_cache_bytes
from edge_conflayers.errors import BadInput


def test_a_context_larger_than_memory(tiny: Tiny) -> None:
    with pytest.raises(BadInput, match=r"a context of 1073741824 tokens .* try"):
        open_session(tiny("llama"), n_ctx=2**30)
    with pytest.raises(BadInput, match="makes no sense"):
        open_session(tiny("llama"), n_ctx=-5)


def test_one_rule_for_context_sizes() -> None:
    model = cast(Model, SimpleNamespace(n_ctx_train=8192))
    assert context_size(model, None) == 4096
    assert context_size(model, None, needed=100) == 4096
    assert context_size(model, None, needed=5000) == 5000
    assert context_size(model, None, needed=9000) == 8192
    assert context_size(model, 0, needed=5000) == 8192
    assert context_size(model, 300, needed=5000) == 300
    assert context_size(cast(Model, SimpleNamespace(n_ctx_train=512)), None) == 512


def test_a_cache_that_the_model_cannot_have(tiny: Tiny) -> None:
    with pytest.raises(BadInput, match=r"q8_0 .* does not divide"):
        open_session(tiny("llama"), n_ctx=64, flash_attention=True, kv_type="q8_0")
    with pytest.raises(BadInput, match="V cache requires flash"):
        Session(tiny("llama", n_embd=128), n_ctx=64, flash_attention=False, kv_type="q8_0")


def test_the_size_of_a_cache(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3, n_head=4, n_head_kv=2, head_dim=32)
    assert kv_cache_bytes(model, 100) == 100 * 3 * 2 * (32 + 32) * 2
    assert kv_cache_bytes(model, 100, "q8_0") == 100 * 3 * 2 * (32 + 32) * 34 // 32
    assert kv_cache_bytes(tiny("mamba"), 100) == 0
