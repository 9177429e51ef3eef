"""Which caches can be had, and how large they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from steps import Tiny, open_session

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session, kv_cache
from edge_conflayers.engine.session.kv_cache import context_for, kv_cache_bytes
from edge_conflayers.errors import BadInput


def test_a_context_larger_than_memory(tiny: Tiny) -> None:
    with pytest.raises(BadInput, match=r"a context of 1073741824 tokens .* try"):
        open_session(tiny("llama"), n_ctx=2**30)
    with pytest.raises(BadInput, match="it must be a whole number from 0"):
        open_session(tiny("llama"), n_ctx=-5)


def test_one_rule_for_context_sizes() -> None:
    model = cast(Model, SimpleNamespace(n_ctx_train=8192))
    assert context_for(model, 0, 0) == context_for(model, 50, 50) == 4096
    assert context_for(model, 4900, 100) == 5000
    assert context_for(model, 8000, 1000) == context_for(model, 8192, 0) == 8192
    assert context_for(model, 4900, 100, 0) == 8192
    assert context_for(model, 200, 5000, 300) == 300
    assert context_for(cast(Model, SimpleNamespace(n_ctx_train=512)), 0, 0) == 512
    with pytest.raises(BadInput, match=r"has 9000 tokens, but the context holds 8192; shorten it$"):
        context_for(model, 9000, 10)
    with pytest.raises(BadInput, match=r"the context holds 300; shorten it or .* larger context"):
        context_for(model, 301, 10, 300)
    with pytest.raises(BadInput, match="it must be a whole number from 0"):
        context_for(model, 1, 1, -1)


def test_as_many_as_fit_takes_what_the_model_was_trained_for_and_memory_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = cast(Model, SimpleNamespace(n_ctx_train=16384))
    monkeypatch.setattr(kv_cache, "kv_cache_bytes", lambda model, n: n * 1000)
    for free, expected in ((None, 16384), (10**9, 16384), (2 * 10_000_000, 9216), (0, 4483)):
        monkeypatch.setattr(kv_cache.machine, "available_memory", lambda free=free: free)
        assert context_for(model, 4483, None) == expected
    assert context_for(model, 4483, None, 5000) == 5000


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
