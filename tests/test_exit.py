"""Steps over hidden states, and early exits whose verification goes on where the draft stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gguf_models import FAMILIES
from steps import (
    Logits,
    RealModel,
    Tiny,
    assert_same_bits,
    decode,
    open_session,
    random_tokens,
    step,
)

from edge_conflayers.binding import llama
from edge_conflayers.draft import Draft
from edge_conflayers.errors import BadInput
from edge_conflayers.model import Model
from edge_conflayers.session import LayerMask, Session
from edge_conflayers.session.probe import probe
from edge_conflayers.session.states import branches, step_states

KINDS: dict[str, dict[str, Any]] = {
    "flash": {"flash_attention": True},
    "no-flash": {"flash_attention": False},
    "q8_0": {"flash_attention": True, "kv_type": "q8_0"},
    "threads": {"flash_attention": True, "threads": 2},
}


def rows_of(session: Session, n: int) -> Logits:
    return np.stack([session.logits(i) for i in range(n)])


def verified(session: Session, pending: Sequence[int], draft: Draft) -> Logits:
    session.verify(pending, draft)
    return rows_of(session, len(pending) + len(draft.tokens))


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
                found = verified(session, pending, draft)
                assert session.exits_reused == rounds
                wanted = decode(reference, [*pending, *draft.tokens], [1])
                assert_same_bits(found, wanted)
                kept = len(pending) + int(rng.integers(0, len(draft.tokens) + 1))
                session.rollback(begin + kept)
                reference.rollback(begin + kept)
                # What stayed in the cache is looked at by full steps and by what comes next.
                following = random_tokens(model, 3, seed=rounds)
                assert_same_bits(step(session, following), decode(reference, following, [1]))
                session.rollback(begin + kept)
                reference.rollback(begin + kept)
                pending = random_tokens(model, 1 + rounds % 3, seed=-rounds + 100)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_an_exit_is_a_full_step(tiny: Tiny, arch: str, kind: str) -> None:
    model = tiny(arch, n_layer=5, n_embd=128)
    check_reuse(model, exits=(1, 3, 4), prompt=30, **KINDS[kind])


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
        with pytest.raises(BadInput, match="'mamba'"):
            step_states(session, [5], np.zeros((1, model.n_embd), np.float32))


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
        found = verified(session, [7], draft.first(3))
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
            found = verified(session, [7], draft)
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
        found = verified(session, [7], draft)
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
        found = verified(session, tokens[59:61], draft)
        assert session.room == 0 and session.exits_reused == 1
        session.rollback(59)
        assert_same_bits(found, step(session, [*tokens[59:61], *draft.tokens]))
        assert session.draft_exit(2, [5], limit=9, stop_probability=0.0).tokens == ()
        session.rollback(63)
        assert session.draft_exit(2, [5], limit=9, stop_probability=0.0).tokens == ()


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_streams_of_all_layers(tiny: Tiny, arch: str) -> None:
    """Each is what the following layers start from: a step over it gives the step's logits."""
    model = tiny(arch, n_layer=4)
    tokens = random_tokens(model, 26)
    with open_session(model, n_ctx=128) as session:
        session.read(tokens[:20])
        streams = branches(session, tokens[20:], 20, stream="all", outputs="all")
        wanted = rows_of(session, 6)
        assert streams is not None and streams.shape == (4, 1, 6, model.n_embd)
        assert_same_bits(step(session, tokens[20:]), wanted)
        session.rollback(20)
        for layer in range(4):
            mask = LayerMask.layers(range(layer))
            branches(session, tokens[20:], 20, mask=mask, states=streams[layer], outputs="all")
            assert_same_bits(rows_of(session, 6), wanted)
            for other in range(layer, 3):
                one = branches(
                    session, tokens[20:], 20, mask=mask, states=streams[layer], stream=other
                )
                assert one is not None
                assert_same_bits(one, streams[other + 1])


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_branches_do_not_see_each_other(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4)
    tokens = random_tokens(model, 90)
    rng = np.random.default_rng(0)
    states = rng.standard_normal((5, 3, model.n_embd)).astype(np.float32)
    mask = LayerMask.layers({0, 2, 3})
    with open_session(model, n_ctx=256) as session:
        session.read(tokens)
        together = branches(session, tokens[80:83], 80, mask=mask, states=states, stream=1)
        assert together is not None and together.shape == states.shape
        for i in range(5):
            alone = branches(
                session, tokens[80:83], 80, mask=mask, states=states[i : i + 1], stream=1
            )
            assert alone is not None
            np.testing.assert_allclose(alone[0], together[i], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_branches_leave_the_text_as_it_was(tiny: Tiny, arch: str) -> None:
    """Also where the ring of a sliding window's cells begins again: after 256 tokens here."""
    model = tiny(arch, n_layer=4)
    tokens = random_tokens(model, 300)

    def run(*, branching: bool) -> Logits:
        with open_session(model, n_ctx=512, batch=64) as session:
            session.read(tokens[:230])
            rows = []
            rng = np.random.default_rng(1)
            for i, token in enumerate(tokens[230:]):
                if branching:
                    n, paths = 1 + i % 4, 1 + i % 7
                    begin = len(session) - n
                    states = rng.standard_normal((paths, n, model.n_embd)).astype(np.float32)
                    mask = LayerMask.layers({i % 4})
                    found = branches(session, tokens[:n], begin, mask=mask, states=states, stream=0)
                    assert found is not None
                rows.append(step(session, [token]))
            return np.concatenate(rows)

    assert_same_bits(run(branching=True), run(branching=False))


def test_branches_without_room(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    tokens = random_tokens(model, 256)
    with open_session(model, n_ctx=256) as session:
        session.read(tokens[:252])
        states = np.zeros((5, 1, model.n_embd), np.float32)
        assert branches(session, [5], 251, states=states, stream=0) is None
        assert branches(session, [5], 251, states=states[:4], stream=0) is not None
        last = step(session, tokens[252:])
        session.rollback(252)
        assert_same_bits(step(session, tokens[252:]), last)


def test_steps_from_states(tiny: Tiny) -> None:
    model = tiny("qwen2", n_layer=5)
    tokens = random_tokens(model, 30)
    with open_session(model, n_ctx=128) as session:
        session.read(tokens[:20])
        wanted = step(session, tokens[20:])
        session.rollback(20)
        streams = branches(session, tokens[20:], 20, stream="all", outputs="all")
        assert streams is not None
        session.set_mask(LayerMask.layers(range(3, 5)))
        session.step(tokens[20:])
        session.rollback(20)
        session.set_mask(LayerMask.layers(range(3)))
        step_states(session, tokens[20:], streams[3][0], outputs="all")
        assert_same_bits(rows_of(session, 10), wanted)
        assert len(session) == 30
        with pytest.raises(ValueError, match="2 states for 1 tokens"):
            step_states(session, [5], streams[3][0][:2])
