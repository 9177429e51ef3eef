"""The suffix index against a search of the text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.drafters.suffix_index import ROOT, SuffixIndex

# Texts over few tokens repeat themselves in all ways; so do copies of a part.
SHORT = st.lists(st.integers(0, 2), max_size=30)
TEXTS = st.lists(SHORT | SHORT.map(lambda part: part * 2), min_size=1, max_size=4)


def index_of(texts: Sequence[Sequence[int]]) -> SuffixIndex:
    index = SuffixIndex()
    for text in texts:
        index.begin()
        for token in text:
            index.append(token)
    return index


def occurrences(texts: Sequence[Sequence[int]], part: Sequence[int]) -> list[tuple[int, int]]:
    """Text and position right after each occurrence."""
    n = len(part)
    return [
        (number, end)
        for number, text in enumerate(texts)
        for end in range(n, len(text) + 1)
        if list(text[end - n : end]) == list(part)
    ]


def followers(texts: Sequence[Sequence[int]], part: Sequence[int]) -> Counter[int]:
    places = occurrences(texts, part)
    return Counter(texts[number][end] for number, end in places if end < len(texts[number]))


@given(TEXTS)
def test_matches_are_the_suffixes_that_something_followed(texts: list[list[int]]) -> None:
    index, text = index_of(texts), texts[-1]
    suffixes = [text[len(text) - n :] for n in range(len(text), 0, -1)]
    followed = [suffix for suffix in suffixes if followers(texts, suffix)]
    matches = list(index.matches())
    assert [index.length(state) for state in matches][:1] == [len(s) for s in followed[:1]]
    # Suffixes that end at the same places share a state, named by the longest of them.
    places = {len(suffix): occurrences(texts, suffix) for suffix in followed}
    named = {tuple(ends): length for length, ends in reversed(places.items())}
    assert [index.length(state) for state in matches] == sorted(named.values(), reverse=True)
    for state in matches:
        suffix = text[len(text) - index.length(state) :]
        counts = {token: index.count(to) for token, to in index.followers(state).items()}
        assert counts == followers(texts, suffix)
        assert index.count(state) == len(occurrences(texts, suffix))


@given(TEXTS, st.data())
def test_every_walk_from_the_root_is_a_part_of_a_text(
    texts: list[list[int]], data: st.DataObject
) -> None:
    index, state, part = index_of(texts), ROOT, list[int]()
    while True:
        after = index.followers(state)
        assert set(after) == set(followers(texts, part))
        if not after:
            break
        token = data.draw(st.sampled_from(sorted(after)))
        part, state = [*part, token], after[token]
        assert index.count(state) == len(occurrences(texts, part))


def test_a_text_of_one_token_takes_linear_time() -> None:
    index = SuffixIndex()
    began = time.process_time()
    for _ in range(20_000):
        index.append(7)
    assert time.process_time() - began < 5  # 20,000 tokens at 20,000 suffixes each take minutes
    assert index.length(next(index.matches())) == 19_999
    assert all(index.count(after) > 0 for s in index.matches() for after in [index.followers(s)[7]])
