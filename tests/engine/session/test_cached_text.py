"""Steps and the way back: what a session held before must leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import (
    CACHES,
    Logits,
    RealModel,
    Tiny,
    assert_same_bits,
    decode,
    open_session,
    random_tokens,
    step,
    text_logits,
)

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import ContextFull, LayerMask, Session
from edge_conflayers.errors import EdgeConflayersError


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3", "gpt2", "qwen2moe"])
@pytest.mark.parametrize("kind", CACHES)
def test_the_same_tokens_after_a_rollback(tiny: Tiny, arch: str, kind: str) -> None:
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, 60)
    with open_session(model, n_ctx=256, **CACHES[kind]) as session:
        session.read(tokens[:30])
        first = decode(session, tokens[30:], [1])
        for length in (59, 45, 31, 30):
            session.rollback(length)
            assert len(session) == length and session.tokens == tokens[:length]
            decode(session, random_tokens(model, 20, seed=length), [7, 1])  # other tokens
            session.rollback(length)
            assert_same_bits(decode(session, tokens[length:], [1]), first[length - 30 :])


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
@pytest.mark.parametrize("kind", CACHES)
def test_logits_do_not_depend_on_the_batch(tiny: Tiny, arch: str, kind: str) -> None:
    """What verification needs: tokens evaluated together get the bits they would get one by one."""
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, 150)
    with open_session(model, n_ctx=256, **CACHES[kind]) as session:
        session.read(tokens[:30])
        single = decode(session, tokens[30:], [1])
        for sizes in ([2], [5], [8], [3, 1, 7, 26]):
            session.rollback(30)
            assert_same_bits(decode(session, tokens[30:], sizes), single)


def test_a_full_context(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 300)
    with open_session(model, n_ctx=256) as session:
        assert session.n_ctx == session.room == 256
        session.read(tokens[:250])
        assert session.room == 6
        with pytest.raises(ContextFull, match="7 more tokens"):
            session.step(tokens[250:257])
        with pytest.raises(ContextFull, match="50 tokens, 6 fit"):
            session.read(tokens[250:300])
        assert session.tokens == tokens[:250]
        last = step(session, tokens[250:256])
        assert session.room == 0
        with pytest.raises(ContextFull):
            session.step(tokens[:1])
        assert session.draft(LayerMask.layers({1}), [5], limit=4, stop_probability=0.0).tokens == ()
        session.rollback(250)
        assert_same_bits(step(session, tokens[250:256]), last)
        session.clear()
        assert session.room == 256 and session.tokens == []
        fresh = step(session, tokens[:40])
    with open_session(model, n_ctx=256) as session:
        assert_same_bits(step(session, tokens[:40]), fresh)


@pytest.mark.parametrize("n_ctx", [1, 7, 100])
def test_a_context_is_as_large_as_asked_for(tiny: Tiny, n_ctx: int) -> None:
    model = tiny("llama")
    with open_session(model, n_ctx=n_ctx) as session:
        assert session.n_ctx == n_ctx
        tokens = random_tokens(model, n_ctx + 1)
        session.read(tokens[:-1])
        with pytest.raises(ContextFull):
            session.step(tokens[-1:])


def test_logits_that_were_not_kept(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 8)
    with open_session(model, n_ctx=64) as session:
        session.step(tokens[:4], outputs="last")
        assert session.logits(-1).shape == (model.n_vocab,)
        with pytest.raises(EdgeConflayersError, match="no logits for token 0"):
            session.logits(0)
        session.step(tokens[4:], outputs="none")
        with pytest.raises(EdgeConflayersError):
            session.logits(-1)


def test_more_logits_than_there_is_room_for(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 100)
    with Session(model, n_ctx=128, threads=1, max_outputs=8) as session:
        session.read(tokens[:50])
        with pytest.raises(EdgeConflayersError, match="at most 8 tokens, not 9"):
            session.step(tokens[50:59], outputs="all")
        assert len(session) == 50
        found = step(session, tokens[50:58])
    with open_session(model, n_ctx=128) as session:
        session.read(tokens[:50])
        assert_same_bits(step(session, tokens[50:58]), found)


def test_argmax_is_the_first_of_the_largest(tiny: Tiny) -> None:
    model = tiny("llama", n_vocab=700)
    tokens = random_tokens(model, 50)
    with open_session(model, n_ctx=64) as session:
        rows = step(session, tokens)
        assert [session.best(i)[0] for i in range(50)] == rows.argmax(axis=1).tolist()


@pytest.mark.parametrize("n_vocab", [300, 1024, 5000])
def test_the_likeliest_tokens(tiny: Tiny, n_vocab: int) -> None:
    model = tiny("llama", n_vocab=n_vocab)
    tokens = random_tokens(model, 12)
    with open_session(model, n_ctx=64) as session:
        rows = step(session, tokens).astype(np.float64)
        for index, row in enumerate(rows):
            order = np.lexsort((np.arange(n_vocab), -row))
            weights = np.exp(row - row.max())
            for k in (0, 1, 2, 10, 299, n_vocab, n_vocab + 5):
                found, probabilities = session.top_k(index, k)
                assert found == order[:k].tolist()
                assert probabilities == pytest.approx(weights[order[:k]] / weights.sum(), rel=1e-5)
        assert session.top_k(-1, 3) == session.top_k(11, 3)
        with pytest.raises(EdgeConflayersError, match="no logits were kept for output 12"):
            session.top_k(12, 3)


def test_equal_logits_are_taken_by_token(tiny: Tiny) -> None:
    """Logits written over, so that many are equal, none is a number, or one is infinite."""
    model = tiny("llama", n_vocab=5000)
    rng = np.random.default_rng(0)
    with open_session(model, n_ctx=64) as session:
        session.step(random_tokens(model, 4))
        row = session.logits()
        for values in (2, 3, 40):
            row[:] = rng.integers(0, values, len(row))
            order = np.lexsort((np.arange(len(row)), -row))
            assert session.best()[0] == order[0]
            assert session.top_k(-1, 100)[0] == order[:100].tolist()
        row[::3] = np.nan
        order = np.lexsort((np.arange(len(row)), -np.nan_to_num(row, nan=-np.inf)))
        assert session.best()[0] == order[0]
        assert session.top_k(-1, 100)[0] == order[:100].tolist()
        row[:] = -np.inf
        assert session.best()[0] == 0
        assert session.top_k(-1, 2) == ([0, 1], [0.0, 0.0])
        row[:] = np.nan
        assert session.best()[0] == 0
        assert session.top_k(-1, 2) == ([], [])


def test_a_closed_session(tiny: Tiny) -> None:
    session = open_session(tiny("llama"), n_ctx=64)
    session.close()
    session.close()
    with pytest.raises(EdgeConflayersError, match="closed"):
        session.step([5])


def drafted(
    model: Model, tokens: list[int], begin: int, mask: LayerMask | None, **settings: Any
) -> Logits:
    """The logits of each token from `begin` on, drafting and rolling back before each round."""
    rng = np.random.default_rng(1)
    rows = []
    with open_session(model, **settings) as session:
        session.read(tokens[:begin])
        while len(session) < len(tokens):
            position = len(session)
            room = min(9, len(tokens) - position)
            accepted = int(rng.integers(1, room + 1))
            if mask is not None:
                session.draft(mask, [tokens[position]], limit=room, stop_probability=0.0)
            wrong = [int(t) for t in rng.integers(3, 300, 9)]
            batch = tokens[position : position + accepted] + wrong
            if len(batch) <= session.room:
                rows.append(step(session, batch)[:accepted])
            else:
                rows.append(step(session, batch[:accepted]))
            session.rollback(position + accepted)
    return np.concatenate(rows)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", CACHES)
def test_rollback_beyond_a_sliding_window(tiny: Tiny, masked: bool, kind: str) -> None:
    """A window of 64 tokens in a ring of 256 cells, gone around nearly twice."""
    model = tiny("gemma3", n_embd=128)
    tokens = random_tokens(model, 490)
    settings = {"n_ctx": 512, "batch": 64, **CACHES[kind]}
    with open_session(model, **settings) as session:
        session.read(tokens[:100])
        plain = decode(session, tokens[100:], [1])
    mask = LayerMask.layers({1, 2}) if masked else None
    assert_same_bits(drafted(model, tokens, 100, mask, **settings), plain)


def test_a_sliding_window_hides_what_is_before_it(tiny: Tiny) -> None:
    """With every layer windowed, tokens further back than all windows together change nothing."""
    model = tiny("gemma3", n_layer=2, sliding_window=16)
    one = random_tokens(model, 80, seed=1)
    other = random_tokens(model, 40, seed=2) + one[40:]
    mask = LayerMask.layers({1})  # the layer without a window
    rows = [text_logits(model, tokens, 40, mask) for tokens in (one, other)]
    assert (rows[0][39] != rows[1][39]).any()
    assert_same_bits(rows[0][-20:], rows[1][-20:])


def test_too_far_back_for_a_sliding_window(tiny: Tiny) -> None:
    model = tiny("gemma3")
    tokens = random_tokens(model, 500)
    with open_session(model, n_ctx=512, batch=64) as session:
        session.read(tokens)
        with pytest.raises(EdgeConflayersError, match="too far back"):
            session.rollback(100)
        assert len(session) == 500
        session.rollback(448)  # a whole number of batches, so that it can be read again alike
        again = decode(session, tokens[448:], [1])
        session.clear()
        session.read(tokens[:448])
        assert_same_bits(decode(session, tokens[448:], [1]), again)
        session.rollback(0)
        assert len(session) == 0


@pytest.mark.model
@pytest.mark.parametrize("begin", [1008, 1500])
def test_rollback_beyond_gemmas_window(real_model: RealModel, begin: int) -> None:
    """Over the end of the ring of 1,024 cells, and beyond 1,500 tokens."""
    model = real_model("gemma3-270m")
    text = Path(__file__).read_text(encoding="utf-8")
    tokens = model.tokenize(text)[: begin + 32]
    assert len(tokens) == begin + 32
    settings: dict[str, Any] = {"n_ctx": 2048, "threads": 2, "flash_attention": True}
    with open_session(model, **settings) as session:
        session.read(tokens[:begin])
        plain = decode(session, tokens[begin:], [1])
    mask = LayerMask.layers({4, 5, 9})
    assert_same_bits(drafted(model, tokens, begin, mask, **settings), plain)
