"""Early exits, whose verification goes on where the draft stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from exit_rounds import check_round
from gguf_models import FAMILIES
from steps import (
    CACHES,
    RealModel,
    Tiny,
    assert_same_bits,
    decode,
    open_session,
    random_tokens,
    set_control_vector,
    step,
    verify,
)

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.branches import branches
from edge_conflayers.engine.session.probe import probe
from edge_conflayers.errors import BadInput


def check_reuse(model: Model, *, exits: Sequence[int], prompt: int, **settings: Any) -> None:
    """Rounds with drafts of all lengths and accepted parts of all lengths, against a session that
    decodes the same tokens one by one."""
    tokens = random_tokens(model, prompt + 8)
    with (
        open_session(model, **{"n_ctx": 1024, **settings}) as session,
        open_session(model, **{"n_ctx": 1024, **settings}) as reference,
    ):
        session.read(tokens[:prompt])
        reference.read(tokens[:prompt])
        rng = np.random.default_rng(prompt)
        pending = [tokens[prompt]]
        rounds = 0
        for layer in exits:
            for limit in (1, 2, 5, 9):
                begin = len(session)
                draft = session.draft_exit(layer, pending, limit=limit, stop_probability=0.0)
                assert len(session) == begin and draft.exit is not None
                n = len(pending) + len(draft.tokens)
                assert draft.exit.states.shape == (n, model.n_embd)
                rounds += 1
                pending = check_round(
                    *(session, reference, pending, draft, rng), number=rounds, reused=rounds
                )


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("kind", CACHES)
def test_going_on_from_an_exit_is_a_full_step(tiny: Tiny, arch: str, kind: str) -> None:
    model = tiny(arch, n_layer=5, n_embd=128)
    check_reuse(model, exits=(1, 3, 4), prompt=30, **CACHES[kind])


@pytest.mark.parametrize("quant", ["q4_0", "q8_0", "f16"])
def test_in_quantized_models(tiny: Tiny, quant: str) -> None:
    model = tiny("llama", n_layer=4, n_embd=256, n_ff=512, quant=quant)
    check_reuse(model, exits=(2,), prompt=20)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("prompt", [250, 500, 760])
def test_where_the_cache_grows_and_the_window_slides(tiny: Tiny, arch: str, prompt: int) -> None:
    """Past 256 and 512 cells, and where the ring of a sliding window's 256 cells begins again."""
    model = tiny(arch, n_layer=4)
    check_reuse(model, exits=(2,), prompt=prompt, batch=64)


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_in_a_real_model(real_model: RealModel, name: str) -> None:
    model = real_model(name)
    check_reuse(model, exits=(model.n_layer // 2,), prompt=40, threads=2)


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_architecture_or_its_refusal(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4)
    check_reuse(model, exits=(2,), prompt=20, n_ctx=128)


def test_recurrent_architectures_are_refused_by_name(tiny: Tiny) -> None:
    model = tiny("mamba")
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 4))
        with pytest.raises(BadInput, match="'mamba'"):
            session.draft_exit(1, [5], limit=3, stop_probability=0.0)
        with pytest.raises(BadInput, match="'mamba'"):
            branches(session, [5], 4)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_an_adapter_between_draft_and_verification(tiny: Tiny, arch: str) -> None:
    """What the draft's layers gave is another model's then, and is not gone on with."""
    model = tiny(arch, n_layer=4)
    tokens = random_tokens(model, 20)
    with open_session(model, n_ctx=128) as session, open_session(model, n_ctx=128) as reference:
        session.read(tokens)
        reference.read(tokens)
        draft = session.draft_exit(2, [5], limit=4, stop_probability=0.0)
        set_control_vector(session)
        set_control_vector(reference)
        found = verify(session, [5], draft)
        assert session.exits_reused == 0
        wanted = decode(reference, [5, *draft.tokens], [1])
        assert_same_bits(found, wanted)
        # And it changes something: without it the same tokens have other logits.
        session.rollback(20)
        llama.llama_set_adapter_cvec(session.handle, None, 0, model.n_embd, 0, 0)
        assert not np.array_equal(step(session, [5, *draft.tokens]), wanted)


@pytest.mark.parametrize("layer", [-1, 0, 4, 9])
def test_an_exit_that_is_not_there(tiny: Tiny, layer: int) -> None:
    with (
        open_session(tiny("llama", n_layer=4), n_ctx=64) as session,
        pytest.raises(BadInput, match=f"no exit after {layer} of 4 layers"),
    ):
        session.draft_exit(layer, [5], limit=3, stop_probability=0.0)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_an_exit_drafts_as_the_mask_does(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=5, layer_gain=0.3)
    tokens = random_tokens(model, 40)
    for stop in (0.0, 0.01, 1.0):
        with open_session(model, n_ctx=256) as session:
            session.read(tokens)
            mask = LayerMask.layers(range(2, 5))
            wanted = session.draft(mask, [7, 8], limit=6, stop_probability=stop)
            found = session.draft_exit(2, [7, 8], limit=6, stop_probability=stop)
            assert found.tokens == wanted.tokens
            assert found.probabilities == wanted.probabilities


def drafted(model: Model, **settings: Any) -> tuple[Session, Draft]:
    session = open_session(model, **{"n_ctx": 256, **settings})
    session.read(random_tokens(model, 20))
    return session, session.draft_exit(2, [7], limit=5, stop_probability=0.0)


def test_part_of_a_draft(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    session, draft = drafted(model)
    with session:
        found = verify(session, [7], draft.first(3))
        assert session.exits_reused == 1
        session.rollback(20)
        assert_same_bits(found, step(session, [7, *draft.tokens[:3]]))


def test_states_are_not_used_when_something_came_between(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)

    def other_tokens(session: Session, draft: Draft) -> Draft:
        tokens = (draft.tokens[0] ^ 1, *draft.tokens[1:])
        return Draft(tokens, draft.probabilities, exit=draft.exit)

    def other_draft(session: Session, draft: Draft) -> Draft:
        session.draft_exit(3, [7], limit=3, stop_probability=0.0)
        return draft

    def a_step(session: Session, draft: Draft) -> Draft:
        session.step([9])
        session.rollback(20)
        return draft

    def a_probe(session: Session, draft: Draft) -> Draft:
        probe(session, session.tokens[:8])
        return draft

    def another_text(session: Session, draft: Draft) -> Draft:
        session.clear()
        session.read(random_tokens(model, 20, seed=3))
        return draft

    for between in (other_tokens, other_draft, a_step, a_probe, another_text):
        session, draft = drafted(model)
        with session:
            draft = between(session, draft)
            found = verify(session, [7], draft)
            assert session.exits_reused == 0, between.__name__
            session.rollback(20)
            assert_same_bits(found, step(session, [7, *draft.tokens]))


def test_states_are_not_used_in_other_cells(tiny: Tiny) -> None:
    """Cells before the drafted ones that become free are where the next step goes."""
    model = tiny("llama", n_layer=5)

    def prepared() -> Session:
        session = open_session(model, n_ctx=256)
        session.read(random_tokens(model, 20))
        memory = llama.llama_get_memory(session.handle)
        llama.llama_memory_seq_cp(memory, 0, 1, 0, 12)
        llama.llama_memory_seq_rm(memory, 0, 12, -1)
        llama.llama_memory_seq_rm(memory, 0, -1, -1)
        session.tokens.clear()
        session.read(random_tokens(model, 20, seed=1))
        return session

    with prepared() as session:
        draft = session.draft_exit(2, [7], limit=5, stop_probability=0.0)
        llama.llama_memory_seq_rm(llama.llama_get_memory(session.handle), 1, -1, -1)
        found = verify(session, [7], draft)
        assert session.exits_reused == 0
    with prepared() as session:
        llama.llama_memory_seq_rm(llama.llama_get_memory(session.handle), 1, -1, -1)
        assert_same_bits(found, step(session, [7, *draft.tokens]))


def test_a_context_that_is_nearly_full(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    tokens = random_tokens(model, 64)
    with open_session(model, n_ctx=64) as session:
        session.read(tokens[:59])
        draft = session.draft_exit(2, tokens[59:61], limit=9, stop_probability=0.0)
        assert len(draft.tokens) == 3
        found = verify(session, tokens[59:61], draft)
        assert session.room == 0 and session.exits_reused == 1
        session.rollback(59)
        assert_same_bits(found, step(session, [*tokens[59:61], *draft.tokens]))
        assert session.draft_exit(2, [5], limit=9, stop_probability=0.0).tokens == ()
        session.rollback(63)
        assert session.draft_exit(2, [5], limit=9, stop_probability=0.0).tokens == ()
