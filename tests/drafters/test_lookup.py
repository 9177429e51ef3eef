"""Lookup drafts: candidates come from the text, and follow it wherever it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import check_tree, path_probabilities

from edge_conflayers.drafters import lookup
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.engine.draft import ROOT

TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


class Text:
    """As much of a session as a source needs."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = list(tokens)

    def __len__(self) -> int:
        return len(self.tokens)


def source_of(tokens: Sequence[int]) -> LookupSource:
    source = LookupSource()
    source.restart(tokens)
    return source


def contains(text: Sequence[int], part: Sequence[int]) -> bool:
    n = len(part)
    return any(list(text[i : i + n]) == list(part) for i in range(len(text) - n + 1))


@given(TOKENS, st.integers(0, 10), st.sampled_from([0.0, 0.1, 0.4]))
def test_candidates_are_a_tree_of_what_followed_before(
    text: list[int], limit: int, least: float
) -> None:
    draft = source_of(text).candidates(limit, least=least)
    check_tree(draft, limit)
    assert all(p >= least for p in path_probabilities(draft))
    for index, token in enumerate(draft.tokens):
        parent = draft.parent(index)
        before = text[-1] if parent == ROOT else draft.tokens[parent]
        assert contains(text, [before, token])
    for parent in range(ROOT, len(draft.tokens)):
        children = (i for i in range(len(draft.tokens)) if draft.parent(i) == parent)
        assert sum(draft.probabilities[i] for i in children) <= 1 + 1e-9


@given(TOKENS, st.integers(1, 10))
def test_a_chain_is_the_likeliest_branch(text: list[int], limit: int) -> None:
    source = source_of(text)
    chain, tree = (source.candidates(limit, chain=each) for each in (True, False))
    assert chain.is_chain
    assert chain.tokens[:1] == tree.tokens[:1]


def test_the_longest_match_is_followed() -> None:
    text = [1, 2, 3, 4, 5, 6, 9, 3, 4, 7, 7, 1, 2, 3, 4]
    assert source_of(text).candidates(3, chain=True).tokens == (5, 6, 9)


def test_a_period_goes_on_beyond_the_end_of_the_text() -> None:
    assert source_of([1, 2, 3] * 4).candidates(8, chain=True).tokens == (1, 2, 3, 1, 2, 3, 1, 2)


def test_what_followed_more_often_is_likelier() -> None:
    found = roots(source_of([8, 1, 8, 1, 8, 2, 8]))
    assert found[1] == pytest.approx(2 * found[2])


def test_a_longer_match_is_trusted_more() -> None:
    chances = []
    for n in (1, 2, 3, 4, 6, 10, 20):
        part = list(range(10, 10 + n))
        chances.append(source_of([*part, 1, *part]).candidates(1).probabilities[0])
    assert chances == sorted(chances)
    assert chances[-1] > 0.9 > 0.5 > chances[0]


def roots(source: LookupSource) -> dict[int, float]:
    draft = source.candidates(9)
    first = (i for i in range(len(draft.tokens)) if draft.parent(i) == ROOT)
    return {draft.tokens[i]: draft.probabilities[i] for i in first}


def test_shorter_matches_have_what_longer_ones_leave() -> None:
    short = roots(source_of([7, 2, 5, 9, 2, 6, 8, 2]))
    both = roots(source_of([1, 2, 5, 9, 2, 6, 1, 2]))
    assert both[5] > short[5]
    assert both[6] == pytest.approx((1 - both[5]) * short[6])


def test_trust_follows_what_comes_true() -> None:
    disappointed = source_of([1, 2])
    before = source_of([1, 2, 1]).candidates(1).probabilities[0]
    fresh = 100
    for _ in range(60):  # what followed a match of one token once never follows again
        disappointed.extend([fresh, 50 + fresh, fresh, 51 + fresh])
        fresh += 200
    disappointed.extend([3, 4, 3])
    assert disappointed.candidates(1).tokens == (4,)
    assert disappointed.candidates(1).probabilities[0] < before / 2


def test_a_text_of_one_token_takes_linear_time() -> None:
    began = time.process_time()
    source = source_of([7] * 20_000)
    assert time.process_time() - began < 5  # 20,000 tokens at 20,000 suffixes each take minutes
    assert source.candidates(5, chain=True).tokens == (7,) * 5


def test_an_unknown_end_gives_nothing() -> None:
    assert source_of([1, 2, 3]).candidates(4).tokens == ()
    assert LookupSource().candidates(4).tokens == ()


def observed(source: LookupSource, session: Any, pending: Sequence[int]) -> list[int]:
    source.observe(session, pending)
    return source._text


def test_the_text_is_followed_wherever_it_goes() -> None:
    source, session = LookupSource(), Text(range(100))
    assert observed(source, session, [100]) == [*range(101)]
    size = source.n_known
    session.tokens += [100, 101]
    assert observed(source, session, [102, 103]) == [*range(104)]
    session.tokens.append(102)  # of two pending tokens one has been verified
    assert observed(source, session, [103]) == [*range(104)]
    assert source.n_known == size + 3  # nothing was read twice
    del session.tokens[50:]  # rolled back
    assert observed(source, session, [7]) == [*range(50), 7]
    session.tokens += [8] * 60  # and gone on with otherwise, to a longer text
    assert observed(source, session, [9]) == [*range(50), *[8] * 60, 9]
    other = Text([1, 2, 3])
    assert observed(source, other, [4]) == [1, 2, 3, 4]


def test_earlier_texts_are_remembered() -> None:
    source = LookupSource()
    source.observe(Text([1, 2, 3, 4, 5]), [6])
    source.observe(Text([9, 3]), [4])
    assert source.candidates(2, chain=True).tokens == (5, 6)


def test_matches_do_not_span_texts() -> None:
    source = LookupSource()
    source.observe(Text([1]), [2])
    source.observe(Text([3]), [2])
    assert source.candidates(2).tokens == ()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_MAX_TOKENS", 10)
    source = LookupSource()
    source.observe(Text([1, 2, 3, 4, 5]), [6])
    source.observe(Text([9, 9, 9, 3]), [4])
    assert source.candidates(2).tokens == ()
    assert source.n_known == 5


@given(TOKENS, TOKENS)
def test_following_token_by_token_is_the_same_as_observing(
    text: list[int], more: list[int]
) -> None:
    followed, observed = source_of(text), source_of(text)
    for token in more:
        likeliest = followed.follow(token)
        observed.extend([token])
        candidates = observed.candidates(1)
        assert likeliest == (candidates.probabilities[0] if candidates.tokens else 0.0)
    assert followed.candidates(8) == observed.candidates(8)
    assert followed.n_known == observed.n_known == len(text) + len(more)
    size = followed.n_known
    followed.observe(Text([*text, *more]), [1])  # another session: the text is taken in anew
    assert followed.n_known == 2 * size + 1
