"""What must hold for every tree of drafted tokens."""

from __future__ import annotations

from edge_conflayers.engine.draft import ROOT, Draft


def check_tree(draft: Draft, limit: int) -> None:
    n = len(draft.tokens)
    assert n <= limit
    assert len(draft.probabilities) == n
    assert len(draft.parents) in (0, n) and len(draft.sources) in (0, n)
    assert all(0 < p <= 1 for p in draft.probabilities)
    assert all(ROOT <= draft.parent(i) < i for i in range(n))
    places = [(draft.parent(i), draft.tokens[i]) for i in range(n)]
    assert len(set(places)) == n, "siblings that are the same token"


def path_probabilities(draft: Draft) -> list[float]:
    """Of each node together with all before it."""
    found: list[float] = []
    for index, probability in enumerate(draft.probabilities):
        parent = draft.parent(index)
        found.append(probability * (1.0 if parent == ROOT else found[parent]))
    return found
