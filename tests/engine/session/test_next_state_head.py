"""Hidden states of a step, and what a next-state head says of them."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from steps import Tiny, assert_same_bits, decode, open_session, random_tokens, step

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, LayerMask
from edge_conflayers.engine.session.branches import branches
from edge_conflayers.engine.session.next_state_head import (
    drawn_from,
    keep_inner_state,
    next_tokens,
    output_state,
    set_next_state,
    token_embedding,
)
from edge_conflayers.errors import BadInput, EdgeConflayersError

VOCABULARY = range(5, 320, 3)


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("a next-state head computes on the CPU; test_offload says that it is refused")


def matrix(model: Model, name: str) -> np.ndarray:
    """One of the file's, in single precision."""
    tensors = {each.name: each for each in gguf.GGUFReader(model.path).tensors}
    found = tensors[name]
    return gguf.dequantize(found.data, found.tensor_type).astype(np.float32)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3", "qwen2moe"])
def test_a_state_is_what_the_logits_are_computed_from(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4, quant="f32")
    head = matrix(model, "output.weight")
    with open_session(model) as session:
        logits = step(session, random_tokens(model, 6))
        for i in range(6):
            state = output_state(session.context, i, model.n_embd)
            assert head @ state == pytest.approx(logits[i], rel=1e-3, abs=1e-3)
        session.read(random_tokens(model, 40))
        state = output_state(session.context, -1, model.n_embd)
        assert head @ state == pytest.approx(session.logits(), rel=1e-3, abs=1e-3)


def test_a_state_of_a_tree_is_that_of_its_branch(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    prompt, (a, b, c) = random_tokens(model, 20), random_tokens(model, 3, 1)
    states = []
    with open_session(model) as session:
        session.read(prompt)
        session.verify([a], Draft((b, c), (0.5, 0.5), (-1, -1)))
        states.append(output_state(session.context, 2, model.n_embd))
        session.rollback(len(prompt))
        decode(session, [a, c], [1])
        states.append(output_state(session.context, -1, model.n_embd))
    assert_same_bits(states[0][None], states[1][None])


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3", "qwen2moe"])
def test_an_inner_state_is_what_enters_its_layer(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4)
    prompt, text = random_tokens(model, 20), random_tokens(model, 6, 1)
    with open_session(model) as session:
        keep_inner_state(session.context, 3)
        session.read(prompt)
        streams = branches(session, text, len(prompt), stream=2)
        assert streams is not None
        expected = streams[0] / np.sqrt((streams[0].astype(float) ** 2).mean(-1, keepdims=True))
        step(session, text)
        for i in range(6):
            states = drawn_from(session.context, i, model.n_embd)
            hidden = output_state(session.context, i, model.n_embd)
            assert_same_bits(states[None, : model.n_embd], hidden[None])
            assert states[model.n_embd :] == pytest.approx(expected[i], rel=1e-5, abs=1e-6)


def test_where_outputs_are_few_an_inner_state_is_that_of_its_token(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    prompt = random_tokens(model, 20)
    states = []
    with open_session(model) as session:
        keep_inner_state(session.context, 3)
        session.read(prompt)  # keeps the last token's output alone
        states.append(drawn_from(session.context, -1, model.n_embd))
        session.rollback(0)
        session.read(prompt[:-1])
        session.step(prompt[-1:])
        states.append(drawn_from(session.context, -1, model.n_embd))
    assert states[0] == pytest.approx(states[1], rel=1e-2, abs=1e-2)  # bits of a batch


def test_an_inner_state_of_a_tree_is_that_of_its_branch(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    prompt, (a, b, c) = random_tokens(model, 20), random_tokens(model, 3, 1)
    states = []
    with open_session(model) as session:
        keep_inner_state(session.context, 2)
        session.read(prompt)
        session.verify([a], Draft((b, c), (0.5, 0.5), (-1, -1)))
        states.append(drawn_from(session.context, 2, model.n_embd))
        session.rollback(len(prompt))
        decode(session, [a, c], [1])
        states.append(drawn_from(session.context, -1, model.n_embd))
    assert_same_bits(states[0][None], states[1][None])


def test_steps_without_an_inner_state_say_so(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    text = random_tokens(model, 8, 1)
    with open_session(model) as session:

        def has_none() -> None:
            with pytest.raises(EdgeConflayersError, match="the last step kept no inner state"):
                drawn_from(session.context, -1, model.n_embd)

        session.read(random_tokens(model, 20))
        has_none()  # nobody asked
        keep_inner_state(session.context, 3)
        session.read(random_tokens(model, 40))
        has_none()  # many tokens
        session.step(text[:1])
        drawn_from(session.context, -1, model.n_embd)
        session.set_mask(LayerMask.layers([1]))
        session.step(text[1:2])
        has_none()
        session.set_mask(NO_MASK)
        session.step(text[2:3])
        drawn_from(session.context, -1, model.n_embd)
        with pytest.raises(BadInput, match="there is no such layer"):
            keep_inner_state(session.context, 4)
        keep_inner_state(session.context, None)
        session.step(text[4:5])
        has_none()


@pytest.mark.parametrize("quant", ["f32", "q8_0", "q4_0"])
@pytest.mark.parametrize("n_embd", [256, 96])
def test_tokens_are_foreseen_by_head_and_lm_head(tiny: Tiny, quant: str, n_embd: int) -> None:
    model = tiny("qwen2", n_layer=3, quant=quant, n_embd=n_embd, n_ff=256)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(2 * n_embd, 3 * n_embd)).astype(np.float32)
    state = rng.normal(size=2 * n_embd).astype(np.float32)
    vocabulary = np.array(VOCABULARY)
    rows = matrix(model, "output.weight")[vocabulary]
    embeddings = matrix(model, "token_embd.weight")
    with open_session(model) as session:
        session.set_draft_vocabulary(VOCABULARY)
        set_next_state(session.context, weights)
        for token in (0, 7, model.n_vocab - 1):
            embedding = token_embedding(session.context, token, n_embd)
            assert embedding == pytest.approx(embeddings[token], abs=1e-6)
            logits = rows @ (weights[:n_embd] @ np.concatenate([state, embedding]))
            tokens, probabilities = next_tokens(session.context, state, token, 5)
            assert set(tokens) <= set(VOCABULARY) and len(set(tokens)) == 5
            assert probabilities == sorted(probabilities, reverse=True)
            # The head is kept in eight bits: the likeliest may change places with near ones.
            places = [int(np.flatnonzero(vocabulary == each)[0]) for each in tokens]
            ranks = (-logits).argsort().argsort()[places]
            assert ranks[0] < 3 and ranks.max() < 20
            softmax = np.exp(logits - logits.max())
            softmax /= softmax.sum()
            assert np.log(probabilities[0]) == pytest.approx(np.log(softmax[places[0]]), abs=1.0)


def test_asking_disturbs_no_step(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3, quant="q8_0")
    text = random_tokens(model, 60)
    rows: dict[bool, Any] = {}
    for asks in (False, True):
        with open_session(model) as session:
            session.set_draft_vocabulary(VOCABULARY)
            if asks:
                keep_inner_state(session.context, 2)
                set_next_state(session.context, np.ones((2 * model.n_embd, 3 * model.n_embd)))
            session.read(text[:20])
            found = []
            for token in text[20:]:
                if asks:
                    before = session.logits().copy()
                    state = drawn_from(session.context, -1, model.n_embd)
                    next_tokens(session.context, state, token, 4)
                    assert_same_bits(session.logits()[None], before[None])
                found.append(step(session, [token]))
            rows[asks] = np.concatenate(found)
    assert_same_bits(rows[True], rows[False])


def test_the_vocabulary_may_change(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    state = np.ones(2 * model.n_embd, dtype=np.float32)
    with open_session(model) as session:
        set_next_state(session.context, np.ones((2 * model.n_embd, 3 * model.n_embd)))
        for vocabulary in ([3, 4, 5], range(100, 290), [7]):
            session.set_draft_vocabulary(vocabulary)
            tokens, _ = next_tokens(session.context, state, 9, 3)
            assert set(tokens) <= set(vocabulary) and len(tokens) == min(3, len(vocabulary))


def test_what_is_missing_is_named(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    state = np.ones(2 * model.n_embd, dtype=np.float32)
    with open_session(model) as session:
        session.read(random_tokens(model, 5))
        with pytest.raises(BadInput, match="there is no next-state head"):
            next_tokens(session.context, state, 3, 2)
        set_next_state(session.context, np.ones((2 * model.n_embd, 3 * model.n_embd)))
        with pytest.raises(BadInput, match="without a draft vocabulary"):
            next_tokens(session.context, state, 3, 2)
        session.set_draft_vocabulary([1, 2, 3])
        for token in (-1, model.n_vocab):
            with pytest.raises(BadInput, match="not in the vocabulary"):
                next_tokens(session.context, state, token, 2)
            with pytest.raises(BadInput, match="not in the vocabulary"):
                token_embedding(session.context, token, model.n_embd)
        with pytest.raises(EdgeConflayersError, match="no logits were kept"):
            output_state(session.context, 2, model.n_embd)
        set_next_state(session.context, None)
        with pytest.raises(BadInput, match="there is no next-state head"):
            next_tokens(session.context, state, 3, 2)
