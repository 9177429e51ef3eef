"""Candidate trees: merged, ordered, cut where they stop paying."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.candidates import Node, as_draft, best_chain, merge, worth_verifying
from edge_conflayers.draft import ROOT, Draft


def stated(source: str, probability: float) -> float:
    return probability


def random_tree(seed: int, size: int, source: str = "a") -> Draft:
    rng = random.Random(seed)
    tokens: list[int] = []
    parents: list[int] = []
    taken = set()
    while len(tokens) < size:
        parent = rng.randrange(-1, len(tokens))
        token = rng.randrange(size + 2)
        if (parent, token) not in taken:
            taken.add((parent, token))
            tokens.append(token)
            parents.append(parent)
    chances = tuple(rng.uniform(0.01, 1.0) for _ in tokens)
    return Draft(tuple(tokens), chances, tuple(parents), (source,) * size)


def path(node: Node | None) -> tuple[int, ...]:
    return () if node is None else (*path(node.parent), node.token)


def paths(draft: Draft) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for i, token in enumerate(draft.tokens):
        before = () if draft.parent(i) == ROOT else found[draft.parent(i)]
        found.append((*before, token))
    return found


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(0, 20))
def test_merged_trees_hold_every_path_once(seed: int, n: int, m: int) -> None:
    first, second = random_tree(seed, n), random_tree(seed + 1, m, "b")
    nodes = merge([first, second], stated)
    assert sorted(map(path, nodes)) == sorted({*paths(first), *paths(second)})
    chances = [node.chance for node in nodes]
    assert chances == sorted(chances, reverse=True)
    seen: set[int] = set()
    for node in nodes:
        assert node.parent is None or id(node.parent) in seen
        seen.add(id(node))


def test_sources_err_independently() -> None:
    a = Draft((5, 6), (0.5, 0.9), (), ("a", "a"))
    b = Draft((5, 7, 8), (0.8, 0.5, 0.5), (ROOT, 0, ROOT), ("b",) * 3)
    nodes = {path(node): node for node in merge([a, b], stated)}
    both = 1 - (1 - 0.5) * (1 - 0.8)
    assert nodes[(5,)].source == "b" and nodes[(5,)].probability == 0.8
    assert nodes[(5,)].chance == pytest.approx(both)
    assert nodes[(5, 6)].source == "a" and nodes[(5, 6)].chance == pytest.approx(both * 0.9)
    assert nodes[(5, 7)].chance == pytest.approx(both * (1 - 0.9) * 0.5)
    assert nodes[(8,)].chance == pytest.approx((1 - 0.5) * 0.5)


def test_chances_are_calibrated() -> None:
    draft = Draft((5, 6), (0.5, 0.5), (), ("a", "a"))
    nodes = merge([draft], lambda source, p: {"a": 0.9}[source])
    assert [node.chance for node in nodes] == pytest.approx([0.9, 0.81])


@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(0, 14))
def test_drafts_of_the_likeliest_nodes(seed: int, size: int, n: int) -> None:
    nodes = merge([random_tree(seed, size)], stated)[:n]
    draft = as_draft(nodes)
    assert sorted(paths(draft)) == sorted(map(path, nodes))
    assert all(draft.parent(i) < i for i in range(len(draft.tokens)))
    row = [path(node) for node in best_chain(nodes)]
    assert paths(draft)[: len(row)] == row
    if nodes:
        assert row[0] == path(nodes[0])


def test_a_node_without_its_parent_is_no_draft() -> None:
    nodes = merge([Draft((1, 2), (0.5, 0.5), (), ("a", "a"))], stated)
    with pytest.raises(ValueError, match="parent"):
        as_draft(nodes[1:])


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.2, 3.0))
def test_no_other_set_of_nodes_is_worth_more(seed: int, size: int, rate: float) -> None:
    """Against every set of nodes that holds its nodes' parents."""
    nodes = merge([random_tree(seed, size)], stated)

    def step(n: int) -> float:
        return 1.0 + 0.1 * n + (0.3 if n > 3 else 0.0)

    n, gain = worth_verifying(nodes, range(1, size + 1), step, rate)
    best = 0.0
    for chosen in itertools.product([False, True], repeat=size):
        kept = {id(node) for node, keep in zip(nodes, chosen, strict=True) if keep}
        if all(
            node.parent is None or id(node.parent) in kept for node in nodes if id(node) in kept
        ):
            accepted = sum(node.chance for node in nodes if id(node) in kept)
            best = max(best, accepted - rate * (step(len(kept)) - step(0)))
    assert gain == pytest.approx(best)
    assert gain == pytest.approx(
        sum(node.chance for node in nodes[:n]) - rate * (step(n) - step(0))
    )


def test_only_the_given_counts() -> None:
    nodes = merge([Draft(tuple(range(9)), (1.0,) * 9, (), ("a",) * 9)], stated)
    assert worth_verifying(nodes, range(1, 5), lambda n: 1.0, 1.0) == (4, 4.0)
    assert worth_verifying(nodes, (2, 5, 11), lambda n: 1.0, 1.0) == (5, 5.0)
    assert worth_verifying(nodes, (), lambda n: 1.0, 1.0) == (0, 0.0)
    assert worth_verifying([], (1, 2), lambda n: 1.0, 1.0) == (0, 0.0)
