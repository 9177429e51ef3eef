"""Best-first trees against an enumeration of all paths."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import check_tree, path_probabilities

from edge_conflayers.draft import ROOT, Draft
from edge_conflayers.drafters.trees import best_first

Table = dict[int, list[tuple[int, float, int]]]
DEPTH = 4


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """What follows each of four states, which are named by the token that leads there."""
    table = {}
    for state in range(4):
        tokens = draw(st.lists(st.integers(0, 3), max_size=3, unique=True))
        chances = draw(st.lists(st.floats(0.01, 1), min_size=len(tokens), max_size=len(tokens)))
        ranked = sorted(zip(tokens, chances, strict=True), key=lambda each: -each[1])
        table[state] = [(token, chance, token) for token, chance in ranked]
    return table


def all_paths(table: Table, state: int = 0, path: float = 1.0, depth: int = 0) -> list[float]:
    if depth == DEPTH:
        return []
    found = []
    for _, chance, after in table[state]:
        found += [path * chance, *all_paths(table, after, path * chance, depth + 1)]
    return found


def limited(table: Table) -> tuple[tuple[int, int], object]:
    """The same with a depth, so that there is an end to enumerate up to."""

    def successors(
        state: tuple[int, int], least: float
    ) -> list[tuple[int, float, tuple[int, int]]]:
        here, depth = state
        if depth == DEPTH:
            return []
        return [(token, chance, (after, depth + 1)) for token, chance, after in table[here]]

    return (0, 0), successors


@given(tables(), st.integers(0, 12), st.sampled_from([0.0, 0.05, 0.3]))
def test_the_likeliest_nodes(table: Table, limit: int, least: float) -> None:
    root, successors = limited(table)
    draft = best_first(root, successors, limit, source="x", least=least)
    check_tree(draft, limit)
    expected = sorted((p for p in all_paths(table) if p >= least), reverse=True)[:limit]
    assert sorted(path_probabilities(draft), reverse=True) == pytest.approx(expected)
    assert set(draft.sources) <= {"x"}


@given(tables(), st.integers(0, 6))
def test_a_chain_takes_the_likeliest_of_each(table: Table, limit: int) -> None:
    root, successors = limited(table)
    draft = best_first(root, successors, limit, source="x", chain=True)
    expected, state = [], 0
    while len(expected) < min(limit, DEPTH) and table[state]:
        state = table[state][0][0]
        expected.append(state)
    assert list(draft.tokens) == expected
    assert draft.is_chain


@given(tables(), st.integers(1, 12))
def test_the_likeliest_child_comes_right_after_its_parent(table: Table, limit: int) -> None:
    root, successors = limited(table)
    draft = best_first(root, successors, limit, source="x")
    for parent in range(ROOT, len(draft.tokens)):
        children = [i for i in range(len(draft.tokens)) if draft.parent(i) == parent]
        if children:
            assert children[0] == parent + 1
            chances = [draft.probabilities[i] for i in children]
            assert chances == sorted(chances, reverse=True)


def test_successors_hear_what_is_too_unlikely() -> None:
    asked = []

    def successors(state: int, least: float) -> list[tuple[int, float, int]]:
        asked.append((state, least))
        return [(state + 1, 0.5, state + 1)]

    assert best_first(0, successors, 9, source="x", least=0.2).tokens == (1, 2)
    assert [state for state, _ in asked] == [0, 1, 2]
    assert all(math.isclose(least, 0.2 * 2**state) for state, least in asked)


def test_nothing() -> None:
    assert best_first(0, lambda state, least: [], 8, source="x") == Draft()
    assert best_first(0, lambda state, least: [(1, 0.5, 1)], 0, source="x") == Draft()
