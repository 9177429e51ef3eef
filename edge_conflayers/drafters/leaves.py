"""Alternatives to drafted tokens, verified with them as leaves (the published ConfLayers,
arXiv 2604.14612, `model/conflayers`)."""

from __future__ import annotations

from edge_conflayers.engine.draft import ROOT, Draft

MOST = 10
"""Most alternatives to one token."""

# By a drafted token's probability, how many alternatives the published implementation verifies when
# decoding is greedy: the surer, the fewer.
_ALTERNATIVES = ((0.95, 3), (0.8, 5), (0.5, 8))


def alternatives(probability: float) -> int:
    """How many alternatives to verify to a token that was drafted with this probability."""
    return next((k for least, k in _ALTERNATIVES if probability > least), MOST)


def with_leaves(draft: Draft, most: int, least: float) -> Draft:
    """The draft's first row and the likeliest of the leaves beside it.

    Args:
        draft: a row, then runners-up to each of its tokens, likeliest first (``Session.draft``).
        most: tokens in all; the row stays whole.
        least: probability of a leaf together with all before it under which it is left out.
    """
    row = draft.chain_length
    before = [1.0]  # probability of the row up to each token
    for probability in draft.probabilities[:row]:
        before.append(before[-1] * probability)
    seen = [0] * row
    leaves = []
    for i in range(row, len(draft.tokens)):
        beside = draft.parent(i) + 1
        seen[beside] += 1
        likely = before[beside] * draft.probabilities[i]
        if likely >= least and seen[beside] <= alternatives(draft.probabilities[beside]):
            leaves.append((-likely, i))
    kept = sorted(i for _, i in sorted(leaves)[: max(0, most - row)])
    if not kept:
        return draft.first(row)
    chosen = [*range(row), *kept]
    return Draft(
        tuple(draft.tokens[i] for i in chosen),
        tuple(draft.probabilities[i] for i in chosen),
        (ROOT, *range(row - 1), *(draft.parent(i) for i in kept)),
    )
