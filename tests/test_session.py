"""Steps and the way back: what a session held before must leave no trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import (
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

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.model import Model
from edge_conflayers.session import ContextFull, LayerMask, Session
from edge_conflayers.session.kv_cache import kv_cache_bytes
from edge_conflayers.session.saved import load_session, save_session

KINDS: dict[str, dict[str, Any]] = {
    "flash": {"flash_attention": True},
    "no-flash": {"flash_attention": False},
    "q8_0": {"flash_attention": True, "kv_type": "q8_0"},  # heads of 32
    "threads": {"flash_attention": True, "threads": 2},
}


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3", "gpt2", "qwen2moe"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens_after_a_rollback(tiny: Tiny, arch: str, kind: str) -> None:
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, 60)
    with open_session(model, **{"n_ctx": 256, "threads": 1, **KINDS[kind]}) as session:
        session.read(tokens[:30])
        first = decode(session, tokens[30:], [1])
        for length in (59, 45, 31, 30):
            session.rollback(length)
            assert len(session) == length and session.tokens == tokens[:length]
            decode(session, random_tokens(model, 20, seed=length), [7, 1])  # other tokens
            session.rollback(length)
            assert_same_bits(decode(session, tokens[length:], [1]), first[length - 30 :])


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_do_not_depend_on_the_batch(tiny: Tiny, arch: str, kind: str) -> None:
    """What verification needs: tokens evaluated together get the bits they would get one by one."""
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, 150)
    with open_session(model, **{"n_ctx": 256, "threads": 1, **KINDS[kind]}) as session:
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


def test_a_context_larger_than_memory(tiny: Tiny) -> None:
    with pytest.raises(BadInput, match=r"a context of 1073741824 tokens .* try"):
        open_session(tiny("llama"), n_ctx=2**30)
    with pytest.raises(BadInput, match="makes no sense"):
        open_session(tiny("llama"), n_ctx=-5)


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
        assert [session.argmax(i) for i in range(50)] == rows.argmax(axis=1).tolist()


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_a_draft_is_greedy_decoding_under_the_mask(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, layer_gain=0.5)
    tokens = random_tokens(model, 40)
    mask = LayerMask.layers({1, 2})
    with open_session(model, n_ctx=256) as session:
        session.read(tokens)
        session.set_mask(mask)
        expected, probabilities, token = [], [], 17
        for _ in range(9):
            row = step(session, [token])[0].astype(np.float64)
            token = int(row.argmax())
            expected.append(token)
            probabilities.append(1 / np.exp(row - row.max()).sum())
            if model.ends_text(token):
                break
        session.rollback(40)
        session.set_mask(LayerMask())
        after = step(session, tokens[:3])
        session.rollback(40)

        draft = session.draft(mask, [17], limit=9, stop_probability=0.0)
        assert list(draft.tokens) == expected
        assert draft.probabilities == pytest.approx(probabilities, rel=1e-5)
        assert session.tokens == tokens
        assert_same_bits(step(session, tokens[:3]), after)

        session.rollback(40)
        assert session.draft(mask, [17], limit=3, stop_probability=0.0).tokens == draft.tokens[:3]
        assert len(session.draft(mask, [17], limit=9, stop_probability=1.0).tokens) == 1
        limit = sorted(probabilities)[len(probabilities) // 2]
        stopped = session.draft(mask, [17], limit=9, stop_probability=limit)
        n = next(i for i, p in enumerate(probabilities) if p < limit) + 1
        assert stopped.tokens == draft.tokens[:n]
        assert session.draft(mask, [17], limit=0, stop_probability=0.0).tokens == ()


def expected_length(
    probabilities: Sequence[float], stop_path: float, acceptance: Sequence[float] | None
) -> int:
    """How many tokens of a greedy draft are kept."""
    path = 1.0
    for n, probability in enumerate(probabilities):
        if acceptance is None:
            path *= probability
        else:
            path *= acceptance[min(int(probability * len(acceptance)), len(acceptance) - 1)]
        if path < stop_path:
            return max(n, 1)
    return len(probabilities)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 1000).map(lambda n: max(0.0, n - 0.5) / 1000),
    st.none() | st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12),
    st.integers(0, 20),
)
def test_a_draft_stops_where_its_path_is_too_unlikely(
    tiny: Tiny, stop_path: float, acceptance: list[float] | None, seed: int
) -> None:
    model = tiny("llama", layer_gain=0.5)
    mask = LayerMask.layers({1, 2})
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 20, seed))
        whole = session.draft(mask, [17], limit=9, stop_probability=0.0)
        n = expected_length(whole.probabilities, stop_path, acceptance)
        found = session.draft(
            mask, [17], limit=9, stop_probability=0.0, stop_path=stop_path, acceptance=acceptance
        )
        assert found == whole.first(n)


def test_the_first_reason_to_stop_counts(tiny: Tiny) -> None:
    model = tiny("llama", layer_gain=0.5)
    mask = LayerMask.layers({1, 2})
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 20))

        def draft(stop_probability: float, stop_path: float, limit: int = 9) -> int:
            found = session.draft(
                mask,
                [17],
                limit=limit,
                stop_probability=stop_probability,
                stop_path=stop_path,
                acceptance=[0.5],
            )
            return len(found.tokens)

        assert draft(0.0, 0.0) == 9
        assert [draft(0.0, 0.5**n) for n in range(1, 5)] == [1, 2, 3, 4]
        assert draft(0.0, 0.9) == 1  # the first is kept, however unlikely
        assert draft(1.0, 0.1) == 1
        assert draft(0.0, 0.1, limit=2) == 2


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
            assert session.argmax() == order[0]
            assert session.top_k(-1, 100)[0] == order[:100].tolist()
        row[::3] = np.nan
        order = np.lexsort((np.arange(len(row)), -np.nan_to_num(row, nan=-np.inf)))
        assert session.argmax() == order[0]
        assert session.top_k(-1, 100)[0] == order[:100].tolist()
        row[:] = -np.inf
        assert session.argmax() == 0
        assert session.top_k(-1, 2) == ([0, 1], [0.0, 0.0])
        row[:] = np.nan
        assert session.argmax() == 0
        assert session.top_k(-1, 2) == ([], [])


@pytest.mark.parametrize(("arch", "length"), [("llama", 60), ("llama", 300), ("gemma3", 60)])
@pytest.mark.parametrize("kind", ["flash", "no-flash", "q8_0"])
def test_save_and_load(tiny: Tiny, tmp_path: Path, arch: str, length: int, kind: str) -> None:
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, length + 20)
    settings = {"n_ctx": 512, "threads": 1, **KINDS[kind]}
    with open_session(model, **settings) as session:
        session.read(tokens[:length])
        save_session(session, tmp_path / "s.bin")
        expected = decode(session, tokens[length:], [1, 4])
    with open_session(model, **settings) as session:
        session.read(tokens[5:50])  # something else before
        load_session(session, tmp_path / "s.bin")
        assert session.tokens == tokens[:length]
        assert_same_bits(decode(session, tokens[length:], [1, 4]), expected)


def test_a_damaged_save_leaves_an_empty_session(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 60)
    with open_session(model, n_ctx=256) as session:
        expected = step(session, tokens[:40])
        save_session(session, tmp_path / "good")
        good = (tmp_path / "good").read_bytes()
        for name, data in {
            "cut": good[: len(good) // 2],
            "short": good[:10],
            "empty": b"",
            "other": b"not a session" * 100,
        }.items():
            path = tmp_path / name
            path.write_bytes(data)
            with pytest.raises(BadInput, match="not a saved session"):
                load_session(session, path)
            assert session.tokens == []
            assert_same_bits(step(session, tokens[:40]), expected)
        with pytest.raises(BadInput, match="not a saved session"):
            load_session(session, tmp_path / "missing")
        with pytest.raises(EdgeConflayersError, match="cannot be written"):
            save_session(session, tmp_path / "no" / "folder")
    assert not list(tmp_path.glob("*.part"))


def test_a_save_of_another_model(tiny: Tiny, tmp_path: Path) -> None:
    with open_session(tiny("llama"), n_ctx=128) as session:
        session.read(random_tokens(session.model, 20))
        save_session(session, tmp_path / "s")
    with (
        open_session(tiny("llama", n_layer=6), n_ctx=128) as session,
        pytest.raises(BadInput, match="not a saved session"),
    ):
        load_session(session, tmp_path / "s")


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
@pytest.mark.parametrize("kind", KINDS)
def test_rollback_beyond_a_sliding_window(tiny: Tiny, masked: bool, kind: str) -> None:
    """A window of 64 tokens in a ring of 256 cells, gone around nearly twice."""
    model = tiny("gemma3", n_embd=128)
    tokens = random_tokens(model, 490)
    settings = {"n_ctx": 512, "threads": 1, "batch": 64, **KINDS[kind]}
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
