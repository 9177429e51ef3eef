"""What of a text is kept for the next prompt has the bits that reading it anew would give."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny, assert_same_bits, open_session, random_tokens, saved_bytes, step

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.read_batches import ReadBatches, shared_tokens
from edge_conflayers.errors import BadInput

BATCH = 64


@given(
    st.lists(st.integers(0, 1), max_size=40),
    st.integers(0, 40),
    st.lists(st.integers(0, 1), min_size=1, max_size=40),
    st.integers(1, 8),
)
def test_only_whole_batches_that_both_begin_with_are_kept(
    held: list[int], read: int, prompt: list[int], batch: int
) -> None:
    batches = ReadBatches(batch)
    for begin in range(0, min(read, len(held)), batch):
        batches.read(begin, len(held[begin : min(read, begin + batch)]))
    kept = batches.kept(held, prompt)
    assert kept % batch == 0 and kept <= min(read, len(held), len(prompt) - 1)
    assert held[:kept] == prompt[:kept]
    longer = kept + batch
    assert (
        longer > min(read, len(held)) or longer >= len(prompt) or held[:longer] != prompt[:longer]
    )
    batches.forget(len(held) // 2)
    assert batches.kept(held, prompt) <= min(kept, len(held) // 2)


@given(
    st.lists(st.integers(0, 1), max_size=12), st.lists(st.integers(0, 1), min_size=1, max_size=12)
)
def test_all_that_two_texts_begin_with_is_shared_but_for_a_prompts_last_token(
    text: list[int], prompt: list[int]
) -> None:
    n = shared_tokens(text, prompt)
    assert text[:n] == prompt[:n] and n < len(prompt)
    assert n + 1 in (len(text) + 1, len(prompt)) or text[n] != prompt[n]


@pytest.fixture(params=["llama", "window", "qwen2"])
def model(request: pytest.FixtureRequest, tiny: Tiny) -> Model:
    if request.param == "window":
        return tiny("gemma3", n_layer=4, sliding_window=32)
    return tiny(request.param, n_layer=3)


def texts(model: Model, n: int) -> list[list[int]]:
    """Prompts that share beginnings of any length, and differ after them."""
    rng = random.Random(5)
    found = [random_tokens(model, 300)]
    for i in range(n):
        earlier = rng.choice(found)
        shared = rng.choice([0, 63, 64, 65, 128, 200, len(earlier)])
        found.append([*earlier[:shared], *random_tokens(model, rng.randint(1, 90), seed=i)])
    return found


def read_anew(model: Model, prompt: Sequence[int]) -> Session:
    session = open_session(model, n_ctx=1024, batch=BATCH)
    session.read(prompt)
    return session


def test_a_kept_beginning_has_the_bits_of_a_fresh_session(model: Model) -> None:
    kept_any = 0
    with open_session(model, n_ctx=1024, batch=BATCH) as session:
        for prompt in texts(model, 12):
            kept = session.keep_prefix(prompt)
            assert kept % BATCH == 0 and session.tokens == prompt[:kept]
            kept_any += kept > 0
            session.read(prompt[kept:])
            with read_anew(model, prompt) as fresh:
                assert saved_bytes(session) == saved_bytes(fresh)
                for token in random_tokens(model, 20, seed=1):
                    assert_same_bits(step(session, [token]), step(fresh, [token]))
    assert kept_any > 3


def test_what_was_read_under_a_mask_is_not_kept(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    prompt = random_tokens(model, 200)
    with open_session(model, batch=BATCH) as session:
        session.set_mask(LayerMask.layers([1]))
        session.read(prompt)
        session.set_mask(LayerMask())
        assert session.keep_prefix(prompt) == 0 and len(session) == 0


def test_a_model_that_cannot_forget_keeps_nothing(tiny: Tiny) -> None:
    model = tiny("mamba", n_layer=2)
    prompt = random_tokens(model, 150)
    with open_session(model, batch=BATCH) as session:
        session.read(prompt)
        assert session.keep_prefix([*prompt, 5]) == 0 and len(session) == 0


def test_a_text_that_is_put_back_has_its_bits(model: Model) -> None:
    for length in (100, 150, 500):
        prompt = random_tokens(model, length)
        with open_session(model, n_ctx=1024, batch=BATCH) as session:
            session.read(prompt)
            saved = session.saved()
            assert bool(saved.data) == (model.architecture != "gemma3")  # which has windows
            session.clear()
            session.read(random_tokens(model, 90, seed=4))
            session.restore(saved)
            kept = session.keep_prefix(prompt)
            assert kept == ((length - 1) // BATCH * BATCH if saved.data else 0)
            session.read(prompt[kept:])
            with read_anew(model, prompt) as fresh:
                assert saved_bytes(session) == saved_bytes(fresh)


def test_a_state_of_another_model_is_refused(tiny: Tiny) -> None:
    one, other = tiny("llama", n_layer=2), tiny("llama", n_layer=3)
    with open_session(one, batch=BATCH) as session:
        session.read(random_tokens(one, 150))
        saved = session.saved()
    with open_session(other, batch=BATCH) as session:
        with pytest.raises(BadInput, match="of another model"):
            session.restore(saved)
        assert len(session) == 0
