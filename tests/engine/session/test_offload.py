"""Layers on another device. Everything that takes models from the fixtures runs so with
``--offload`` (``make test-offload``); here is what holds only then."""

from __future__ import annotations

import numpy as np
import pytest
from offload import has_gpu
from steps import Tiny, TinyPath, open_session, random_tokens

from edge_conflayers.engine import native
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.next_state_head import (
    drawn_from,
    keep_inner_state,
    next_tokens,
    set_next_state,
)
from edge_conflayers.errors import BadInput, EdgeConflayersError

N_LAYER = 4


@pytest.fixture(autouse=True)
def with_a_device(gpu_layers: int) -> None:
    if not gpu_layers:
        pytest.skip("runs only with --offload")


def test_layers_are_on_the_device(
    tiny_path: TinyPath,
    gpu_layers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(native.log, "show", True)
    with Model(tiny_path("llama", n_layer=N_LAYER), gpu_layers=gpu_layers):
        expected = gpu_layers if gpu_layers > 0 else N_LAYER + 1  # the head counts as one
        assert f"offloaded {expected}/{N_LAYER + 1} layers to GPU" in capsys.readouterr().err


def test_as_many_tokens_as_are_tried_are_exact_with_this_cpus_kernels(tiny: Tiny) -> None:
    if has_gpu():
        pytest.skip("what a GPU keeps depends on its kernels for this model")
    with open_session(tiny("llama"), n_ctx=64) as session:
        assert session.exact_batch == 8


def test_trees_are_refused(tiny: Tiny) -> None:
    with open_session(tiny("llama"), n_ctx=64) as session:
        text = random_tokens(session.model, 12)
        session.read(text)
        assert not session.verifies_trees
        tokens = tuple(random_tokens(session.model, 2, 1))
        with pytest.raises(EdgeConflayersError, match=r"trees .* GPU"):
            session.verify([5], Draft(tokens, (1.0, 1.0), (ROOT, ROOT)))
        assert session.tokens == text


def test_a_next_state_head_is_refused_where_the_lm_head_is_on_the_device(
    tiny: Tiny, gpu_layers: int
) -> None:
    if gpu_layers > 0:
        pytest.skip("the LM head is not on the device")
    model = tiny("llama", n_layer=N_LAYER)
    with open_session(model, n_ctx=64) as session:
        keep_inner_state(session.context, 1)
        session.read(random_tokens(model, 12))
        session.set_draft_vocabulary(range(100))
        state = drawn_from(session.context, -1, model.n_embd)
        set_next_state(session.context, np.zeros((2 * model.n_embd, 3 * model.n_embd)))
        with pytest.raises(BadInput, match="not in memory that the CPU computes in"):
            next_tokens(session.context, state, 5, 2)
