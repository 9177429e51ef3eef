"""Which alternatives to drafted tokens are verified with them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.drafters.leaves import alternatives, with_leaves
from edge_conflayers.engine.draft import ROOT, Draft


def drafted(seed: int, chain: int, width: int) -> Draft:
    """A chain and ``width`` runners-up to each of its tokens, as ``Session.draft`` gives them."""
    rng = random.Random(seed)
    best = [rng.uniform(0.3, 1.0) for _ in range(chain)]
    beside = [sorted((rng.uniform(0, 1 - p) for _ in range(width)), reverse=True) for p in best]
    tokens = rng.sample(range(1000), chain * (width + 1))
    parents = [*range(-1, chain - 1), *(i - 1 for i in range(chain) for _ in range(width))]
    return Draft(tuple(tokens), (*best, *(p for each in beside for p in each)), tuple(parents))


@pytest.mark.parametrize(
    ("probability", "number"), [(0.96, 3), (0.95, 5), (0.81, 5), (0.8, 8), (0.51, 8), (0.5, 10)]
)
def test_the_surer_the_fewer(probability: float, number: int) -> None:
    assert alternatives(probability) == number


@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.integers(0, 10),
    st.integers(1, 40),
    st.floats(0, 0.5),
)
def test_the_likeliest_are_kept(seed: int, chain: int, width: int, most: int, least: float) -> None:
    draft = drafted(seed, chain, width)
    found = with_leaves(draft, most, least)
    assert found.tokens[:chain] == draft.tokens[:chain] and found.chain_length == chain
    assert len(found.tokens) <= max(most, chain)

    def likely(of: Draft, i: int) -> float:
        return of.probabilities[i] * (likely(of, of.parent(i)) if of.parent(i) != ROOT else 1.0)

    kept = {found.tokens[i]: likely(found, i) for i in range(chain, len(found.tokens))}
    rank = [0] * chain
    for i in range(chain, len(draft.tokens)):
        beside = draft.parent(i) + 1
        rank[beside] += 1
        allowed = rank[beside] <= alternatives(draft.probabilities[beside])
        if draft.tokens[i] in kept:
            assert allowed and kept[draft.tokens[i]] == pytest.approx(likely(draft, i))
            assert kept[draft.tokens[i]] >= least * 0.999
        elif allowed and likely(draft, i) >= least * 1.001:  # there was no room for it
            assert len(found.tokens) == max(most, chain)
            assert likely(draft, i) <= min(kept.values(), default=1.0) * 1.001


def test_a_row_without_leaves_is_a_chain() -> None:
    assert with_leaves(Draft((1, 2), (0.9, 0.4)), 8, 0.0) == Draft((1, 2), (0.9, 0.4))
    assert with_leaves(drafted(1, 4, 3), 4, 0.0).is_chain
    assert with_leaves(Draft(), 8, 0.0) == Draft()
