"""The tree that a next-state head foresees: what is in it, and that it is the head's own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import Tiny, open_session

from edge_conflayers.engine import binding
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.engine.session.next_state_head import (
    next_tokens,
    next_tree,
    set_next_state,
    token_embedding,
)

VOCABULARY = range(5, 320, 3)
CHILDREN, PLACES = 8, 4  # most of a node, and most nodes of a level that have any


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("a next-state head computes on the CPU")


@dataclass
class Head:
    """A session with a random head, which is sure enough to be asked several levels deep."""

    session: Session
    weights: np.ndarray
    state: np.ndarray

    def tree(self, token: int = 7, **options: Any) -> list[tuple[int, float, int]]:
        everything = {"max_depth": 3, "max_nodes": 200, "min_expand": 0.0, "min_join": 0.0}
        given = binding.NextTreeOptions(**everything | options)
        return list(zip(*next_tree(self.session.context, self.state, token, given), strict=True))

    def after(self, state: np.ndarray, token: int) -> np.ndarray:
        """The predicted states, in single precision."""
        embedding = token_embedding(self.session.context, token, self.session.model.n_embd)
        return (self.weights @ np.concatenate([state, embedding])).astype(np.float32)


@pytest.fixture(scope="module")
def heads(tiny: Tiny) -> Iterator[dict[str, Head]]:
    """By the format of the LM head."""
    made = {}
    for quant in ("f32", "q8_0"):
        model = tiny("qwen2", n_layer=2, quant=quant, n_embd=96, n_ff=256)
        made[quant] = head_of(model)
    yield made
    for each in made.values():
        each.session.close()


def head_of(model: Model) -> Head:
    rng = np.random.default_rng(5)
    n = model.n_embd
    session = open_session(model)
    session.set_draft_vocabulary(VOCABULARY)
    weights = rng.normal(size=(2 * n, 3 * n)).astype(np.float32)
    weights *= 1 / np.sqrt(3 * n)
    weights[:, 2 * n :] *= 12.0  # embeddings are small
    set_next_state(session.context, weights)
    return Head(session, weights, 3 * rng.normal(size=2 * n).astype(np.float32))


def chances_of(tree: list[tuple[int, float, int]], lines: list[float] | None = None) -> list[float]:
    """Of each node, that it and all its ancestors are accepted."""
    found: list[float] = []
    for _, probability, parent in tree:
        own = probability
        if lines is not None:
            n_bins = len(lines) // 2
            bin_ = min(int(probability * n_bins), n_bins - 1)
            own = min(1.0, max(0.0, lines[2 * bin_] + lines[2 * bin_ + 1] * probability))
        found.append(own * (1.0 if parent < 0 else found[parent]))
    return found


def depths_of(tree: list[tuple[int, float, int]]) -> list[int]:
    found: list[int] = []
    for _, _, parent in tree:
        found.append(1 if parent < 0 else found[parent] + 1)
    return found


LINES = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(
    lambda rates: [x for rate in rates for x in (rate / 2, rate / 2)]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    quant=st.sampled_from(["f32", "q8_0"]),
    token=st.integers(0, 300),
    depth=st.integers(0, 5),
    nodes=st.integers(0, 60),
    path=st.floats(0, 0.3),
    expand=st.floats(0, 0.5),
    join=st.floats(0, 0.5),
    lines=st.none() | LINES,
)
def test_a_tree_keeps_to_its_options(
    heads: dict[str, Head],
    quant: str,
    token: int,
    depth: int,
    nodes: int,
    path: float,
    expand: float,
    join: float,
    lines: list[float] | None,
) -> None:
    table = None if lines is None else (ctypes.c_double * len(lines))(*lines)
    tree = heads[quant].tree(
        token,
        max_depth=depth,
        max_nodes=nodes,
        min_path=path,
        min_expand=expand,
        min_join=join,
        chances=None if table is None else ctypes.cast(table, ctypes.POINTER(ctypes.c_double)),
        n_bins=0 if lines is None else len(lines) // 2,
    )
    assert len(tree) <= nodes
    if depth == 0:
        assert not tree
    chances, depths = chances_of(tree, lines), depths_of(tree)
    assert all(chance >= path for chance in chances)
    assert all(a >= b for a, b in pairwise(chances))  # likeliest first
    assert max(depths, default=0) <= depth
    assert {each for each, _, _ in tree} <= set(VOCABULARY)
    assert len({(each, parent) for each, _, parent in tree}) == len(tree)
    parents = {parent for _, _, parent in tree if parent >= 0}
    assert all(parent < i for i, (_, _, parent) in enumerate(tree))
    for level in range(1, depth):
        asked = sorted((i for i in parents if depths[i] == level), key=lambda i: -chances[i])
        assert len(asked) <= PLACES
        if asked:
            assert max(chances[i] for i in asked) >= expand
            best = max(chance for chance, d in zip(chances, depths, strict=True) if d == level)
            assert all(chances[i] >= min(join, best) for i in asked)
    for parent in {parent for _, _, parent in tree}:
        assert sum(each == parent for _, _, each in tree) <= CHILDREN


@pytest.mark.parametrize("quant", ["f32", "q8_0"])
def test_the_first_level_is_that_of_next_tokens(heads: dict[str, Head], quant: str) -> None:
    head = heads[quant]
    tokens, probabilities = next_tokens(head.session.context, head.state, 7, CHILDREN)
    tree = head.tree(max_depth=1)
    assert [(token, p) for token, p, _ in tree] == list(zip(tokens, probabilities, strict=True))


@pytest.mark.parametrize("quant", ["f32", "q8_0"])
def test_deeper_levels_follow_the_predicted_states(heads: dict[str, Head], quant: str) -> None:
    """Each node's children are what the head says of the states that it predicts itself."""
    head = heads[quant]
    tree = head.tree(max_depth=4)
    states = {-1: head.after(head.state, 7)}
    found: dict[int, list[tuple[int, float]]] = {}
    for token, probability, parent in tree:
        found.setdefault(parent, []).append((token, probability))
    followed = 0
    for i, (token, _, parent) in enumerate(tree):
        if parent in states and i in found:
            tokens, probabilities = next_tokens(
                head.session.context, states[parent], token, CHILDREN
            )
            there = dict(found[i])
            # The state went through eight bits once more or less on its way.
            assert tokens[0] in there
            assert np.log(there[tokens[0]]) == pytest.approx(np.log(probabilities[0]), abs=0.4)
            states[i] = head.after(states[parent], token)
            followed += 1
    assert followed >= 3 * PLACES and max(depths_of(tree)) == 4


def test_several_places_get_what_each_would_get_alone(heads: dict[str, Head]) -> None:
    """Asking about several nodes in one product changes what is answered by no more than
    rounding."""
    head = heads["q8_0"]
    alone, together = (head.tree(max_depth=2, min_join=join) for join in (2.0, 0.0))
    best = {
        name: [(token, p) for token, p, parent in tree if parent == 0]
        for name, tree in (("alone", alone), ("together", together))
    }
    assert len({parent for _, _, parent in together}) == 1 + PLACES
    assert len({parent for _, _, parent in alone}) == 2
    assert [token for token, _ in best["alone"]] == [token for token, _ in best["together"]]
    for (_, a), (_, b) in zip(best["alone"], best["together"], strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_of_many_nodes_the_likeliest_are_kept(heads: dict[str, Head]) -> None:
    head = heads["q8_0"]
    every = head.tree()
    for n in (0, 1, 5, 20):
        assert head.tree(max_nodes=n) == every[:n]
