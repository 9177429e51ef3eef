"""Alternatives to drafted tokens, verified with them as leaves of a tree.

As in the published ConfLayers (arXiv 2604.14612, ``model/conflayers``).
"""

from __future__ import annotations

from edge_conflayers.engine.draft import ROOT, Draft

MOST = 10
"""Most alternatives to one token, as published."""

# (probability of the drafted token, alternatives if it is higher): the surer, the fewer. As
# published for greedy decoding.
_ALTERNATIVES = ((0.95, 3), (0.8, 5), (0.5, 8))


def alternatives(probability: float) -> int:
    """How many alternatives to verify beside a token that was drafted with this probability."""
    return next((k for least, k in _ALTERNATIVES if probability > least), MOST)


def with_leaves(draft: Draft, most: int, least: float) -> Draft:
    """The draft's chain with the likeliest of the leaves beside it.

    Args:
        draft: a chain, then runners-up to each of its tokens, likeliest first (``Session.draft``).
        most: most tokens in all; the chain stays whole.
        least: a leaf is left out if its probability, together with the tokens before it, is less.
    """
    length = draft.chain_length
    before = [1.0]  # probability of the chain up to each token
    for probability in draft.probabilities[:length]:
        before.append(before[-1] * probability)
    seen = [0] * length
    leaves = []
    for i in range(length, len(draft.tokens)):
        beside = draft.parent(i) + 1
        seen[beside] += 1
        likely = before[beside] * draft.probabilities[i]
        if likely >= least and seen[beside] <= alternatives(draft.probabilities[beside]):
            leaves.append((-likely, i))
    kept = sorted(i for _, i in sorted(leaves)[: max(0, most - length)])
    if not kept:
        return draft.first(length)
    chosen = [*range(length), *kept]
    return Draft(
        tuple(draft.tokens[i] for i in chosen),
        tuple(draft.probabilities[i] for i in chosen),
        (ROOT, *range(length - 1), *(draft.parent(i) for i in kept)),
    )
