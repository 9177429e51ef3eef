"""Steps over hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gguf_models import FAMILIES
from steps import (
    Tiny,
    assert_same_bits,
    assert_undisturbed,
    kept_logits,
    open_session,
    random_tokens,
    step,
)

from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.branches import branches


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_streams_of_all_layers(tiny: Tiny, arch: str) -> None:
    """Each is what the following layers start from: a step over it gives the step's logits."""
    model = tiny(arch, n_layer=4)
    tokens = random_tokens(model, 26)
    with open_session(model, n_ctx=128) as session:
        session.read(tokens[:20])
        streams = branches(session, tokens[20:], 20, stream="all", outputs="all")
        wanted = kept_logits(session, 6)
        assert streams is not None and streams.shape == (4, 1, 6, model.n_embd)
        assert_same_bits(step(session, tokens[20:]), wanted)
        session.rollback(20)
        for layer in range(4):
            mask = LayerMask.layers(range(layer))
            branches(session, tokens[20:], 20, mask=mask, states=streams[layer], outputs="all")
            assert_same_bits(kept_logits(session, 6), wanted)
            for other in range(layer, 3):
                one = branches(
                    session, tokens[20:], 20, mask=mask, states=streams[layer], stream=other
                )
                assert one is not None
                assert_same_bits(one, streams[other + 1])


@pytest.mark.parametrize("stream", [0, 2, 3, "all"])
@pytest.mark.parametrize("n", [33, 64, 150])
def test_the_streams_of_many_tokens(tiny: Tiny, n: int, stream: Any) -> None:
    """A step of as many operations as one without streams still lays its memory out anew."""
    model = tiny("llama", n_layer=4)
    tokens = random_tokens(model, n)
    with open_session(model, n_ctx=256, max_outputs=150) as session:
        session.read(tokens)  # what the memory is laid out for
        session.rollback(0)
        many = branches(session, tokens, 0, stream=stream, outputs="all")
        assert many is not None
        for begin in range(0, n, 30):
            part = tokens[begin : begin + 30]
            few = branches(session, part, begin, stream=stream, outputs="all")
            assert many[..., begin : begin + 30, :] == pytest.approx(few, rel=0.05, abs=0.05)
            session.read(part)


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

    rng = np.random.default_rng(1)

    def branch(session: Session) -> None:
        i = len(session)
        n, paths = 1 + i % 4, 1 + i % 7
        states = rng.standard_normal((paths, n, model.n_embd)).astype(np.float32)
        mask = LayerMask.layers({i % 4})
        found = branches(session, tokens[:n], i - n, mask=mask, states=states, stream=0)
        assert found is not None

    assert_undisturbed(model, tokens, 230, branch, n_ctx=512, batch=64)


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


def test_states_for_other_tokens_are_refused(tiny: Tiny) -> None:
    model = tiny("llama")
    states = np.zeros((1, 2, model.n_embd), np.float32)
    with (
        open_session(model, n_ctx=64) as session,
        pytest.raises(ValueError, match="2 states for 1 tokens"),
    ):
        branches(session, [5], 0, states=states)
