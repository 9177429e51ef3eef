"""Drafts under a mask: greedy decoding, and when it stops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import Tiny, assert_same_bits, open_session, random_tokens, step

from edge_conflayers.engine.session import NO_MASK, LayerMask


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


@pytest.mark.parametrize("shortlist", [False, True])
def test_runners_up_are_leaves(tiny: Tiny, shortlist: bool) -> None:
    model = tiny("llama", layer_gain=0.5)
    tokens = random_tokens(model, 20)
    mask = LayerMask.layers({1, 2})
    with open_session(model, n_ctx=128) as session:
        session.read(tokens)
        chosen = range(5, model.n_vocab, 2) if shortlist else range(model.n_vocab)
        if shortlist:
            session.set_draft_vocabulary(chosen)
        chain = session.draft(mask, [17], limit=5, stop_probability=0.0)
        tree = session.draft(mask, [17], limit=5, stop_probability=0.0, runners_up=3)
        n = len(chain.tokens)
        assert tree.chain_length == n and len(tree.tokens) == 4 * n
        assert tree.tokens[:n] == chain.tokens
        assert tree.probabilities[:n] == pytest.approx(chain.probabilities)
        session.set_mask(mask)
        for i, token in enumerate([17, *chain.tokens[:-1]]):
            row = step(session, [token])[0].astype(np.float64)[list(chosen)]
            order = np.argsort(-row, kind="stable")[:4]
            share = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            leaves = slice(n + 3 * i, n + 3 * i + 3)
            assert tree.parents[leaves] == (i - 1,) * 3
            assert list(tree.tokens[leaves]) == [chosen[j] for j in order[1:]]
            assert tree.probabilities[leaves] == pytest.approx(share[order[1:]], rel=1e-4)


def test_as_many_runners_up_as_there_are(tiny: Tiny) -> None:
    model = tiny("llama", layer_gain=0.5)
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 20))
        session.set_draft_vocabulary([40, 41, 42])
        mask = LayerMask.layers({1, 2})
        tree = session.draft(mask, [17], limit=1, stop_probability=0.0, runners_up=8)
        assert sorted(tree.tokens) == [40, 41, 42] and sum(tree.probabilities) == pytest.approx(1)


def expected_length(
    probabilities: Sequence[float],
    stop_path: float,
    least_path: float,
    acceptance: Sequence[float] | None,
) -> int:
    """How many tokens of a greedy draft are kept."""
    path = 1.0
    for n, probability in enumerate(probabilities):
        if acceptance is None:
            path *= probability
        else:
            path *= acceptance[min(int(probability * len(acceptance)), len(acceptance) - 1)]
        if path < least_path and n > 0:
            return n
        if path < stop_path:
            return n + 1
    return len(probabilities)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 1000).map(lambda n: max(0.0, n - 0.5) / 1000),
    st.integers(0, 1000).map(lambda n: max(0.0, n - 0.5) / 1000),
    st.none() | st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12),
    st.integers(0, 20),
)
def test_a_draft_stops_where_its_path_is_too_unlikely(
    tiny: Tiny, stop_path: float, least_path: float, acceptance: list[float] | None, seed: int
) -> None:
    model = tiny("llama", layer_gain=0.5)
    mask = LayerMask.layers({1, 2})
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 20, seed))
        whole = session.draft(mask, [17], limit=9, stop_probability=0.0)
        n = expected_length(whole.probabilities, stop_path, least_path, acceptance)
        found = session.draft(
            mask,
            [17],
            limit=9,
            stop_probability=0.0,
            stop_path=stop_path,
            least_path=least_path,
            acceptance=acceptance,
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
        assert [draft(0.0, 0.5**n) for n in range(1, 5)] == [2, 3, 4, 5]
        assert draft(0.0, 0.9) == 1
        assert draft(1.0, 0.1) == 1
        assert draft(0.0, 0.1, limit=2) == 2


def test_the_first_token_is_kept_however_unlikely(tiny: Tiny) -> None:
    model = tiny("llama", layer_gain=0.5)
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 20))
        draft = session.draft(
            LayerMask.layers({1}), [17], limit=9, stop_probability=0.0, least_path=1.0
        )
        assert len(draft.tokens) == 1


@pytest.mark.parametrize("least_path", [0.0, 0.3])
def test_what_was_read_can_be_kept(tiny: Tiny, least_path: float) -> None:
    """Drafting from there is as if the drafted tokens had been read as a text."""
    model = tiny("llama", layer_gain=0.5)
    text = random_tokens(model, 20)
    with open_session(model, n_ctx=64) as session, open_session(model, n_ctx=64) as other:
        session.read(text)
        draft = session.draft(
            NO_MASK, [17, 18], limit=5, stop_probability=0.0, least_path=least_path, keep=True
        )
        read = len(draft.tokens) - (len(draft.tokens) == 5)
        assert session.tokens == [*text, 17, 18, *draft.tokens[:read]]
        other.read(text)
        other.step([17, 18])
        for token in draft.tokens[:read]:
            other.step([token])
        assert_same_bits(step(session, [40]), step(other, [40]))
        session.rollback(21)
        assert session.tokens == [*text, 17]


def test_what_is_kept_when_the_cache_is_full(tiny: Tiny) -> None:
    model = tiny("llama", layer_gain=0.5)
    with open_session(model, n_ctx=32) as session:
        size = session.n_ctx
        session.read(random_tokens(model, size - 2))
        draft = session.draft(NO_MASK, [17], limit=9, stop_probability=0.0, keep=True)
        assert len(draft.tokens) == 2 and session.room == 0
        before = list(session.tokens)
        assert session.draft(NO_MASK, [18], limit=9, stop_probability=0.0, keep=True).tokens == ()
        assert session.tokens == before
