"""Best-first trees against an enumeration of all paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import check_tree, path_probabilities

from edge_conflayers.drafters.native_source import GivenSource
from edge_conflayers.engine.draft import ROOT, Draft

Table = dict[int, list[tuple[int, float]]]
DEPTH = 4


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """What follows each of four tokens, and how likely it is; the text ends with 0."""
    table = {}
    for token in range(4):
        tokens = draw(st.lists(st.integers(0, 3), max_size=3, unique=True))
        chances = draw(st.lists(st.floats(0.01, 1), min_size=len(tokens), max_size=len(tokens)))
        table[token] = list(zip(tokens, chances, strict=True))
    return table


def tree(table: Table) -> Draft:
    """All paths of at most DEPTH tokens."""
    rows: list[tuple[int, float, int]] = []

    def add(token: int, parent: int, depth: int) -> None:
        for after, chance in table[token] if depth < DEPTH else []:
            rows.append((after, chance, parent))
            add(after, len(rows) - 1, depth + 1)

    add(0, ROOT, 0)
    tokens, chances, parents = zip(*rows, strict=True) if rows else ((), (), ())
    return Draft(tokens, chances, parents)


def source_of(draft: Draft) -> GivenSource:
    source = GivenSource("x")
    source.give(draft)
    return source


@given(tables(), st.integers(0, 12), st.sampled_from([0.0, 0.05, 0.3]))
def test_the_likeliest_nodes(table: Table, limit: int, least: float) -> None:
    whole = tree(table)
    draft = source_of(whole).candidates(limit, least=least)
    check_tree(draft, limit)
    expected = sorted((p for p in path_probabilities(whole) if p >= least), reverse=True)[:limit]
    assert sorted(path_probabilities(draft), reverse=True) == pytest.approx(expected)
    assert set(draft.sources) <= {"x"}


@given(tables(), st.integers(0, 6))
def test_a_chain_takes_the_likeliest_of_each(table: Table, limit: int) -> None:
    draft = source_of(tree(table)).candidates(limit, chain=True)
    expected, token = [], 0
    while len(expected) < min(limit, DEPTH) and table[token]:
        token = max(table[token], key=lambda each: each[1])[0]
        expected.append(token)
    assert list(draft.tokens) == expected
    assert draft.is_chain


@given(tables(), st.integers(1, 12))
def test_the_likeliest_child_comes_right_after_its_parent(table: Table, limit: int) -> None:
    draft = source_of(tree(table)).candidates(limit)
    for parent in range(ROOT, len(draft.tokens)):
        children = [i for i in range(len(draft.tokens)) if draft.parent(i) == parent]
        if children:
            assert children[0] == parent + 1
            chances = [draft.probabilities[i] for i in children]
            assert chances == sorted(chances, reverse=True)


def test_nothing() -> None:
    assert source_of(Draft()).candidates(8) == Draft()
    assert source_of(Draft((1,), (0.5,))).candidates(0) == Draft()
    assert source_of(Draft((1,), (0.5,))).candidates(-1) == Draft()


@pytest.mark.parametrize(
    "draft",
    [
        Draft((1, 2), (0.5, 0.5), (1, ROOT)),
        Draft((1, 2), (0.5, 0.5), (ROOT, -2)),
        Draft((1,), (0.0,)),
        Draft((1,), (1.5,)),
        Draft((1,), (float("nan"),)),
    ],
)
def test_what_is_no_tree(draft: Draft) -> None:
    with pytest.raises(ValueError, match="tree"):
        source_of(draft)


def test_the_last_draft_counts() -> None:
    source = GivenSource("x")
    assert source.candidates(8) == Draft()
    source.give(Draft((1, 2), (0.5, 0.5)))
    source.give(Draft((3,), (0.25,)))
    assert source.candidates(8).tokens == (3,)
    with pytest.raises(ValueError, match="tree"):
        source.give(Draft((1,), (0.0,)))
    assert source.candidates(8).tokens == (3,)
