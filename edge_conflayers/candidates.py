"""Candidate tokens of several sources in one tree, and the part of it that is worth verifying."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from edge_conflayers.draft import ROOT, Draft

Chance = Callable[[str, float], float]
"""The chance that a token of this source, stated with this probability, is accepted once its
predecessor is."""


@dataclass(slots=True)
class Node:
    """A candidate.

    Attributes:
        chance: that it and all its ancestors are accepted.
    """

    token: int
    source: str
    probability: float
    chance: float
    parent: Node | None = field(repr=False)
    children: dict[int, Node] = field(default_factory=dict, repr=False)


def merge(drafts: Iterable[Draft], chance: Chance) -> list[Node]:
    """All drafts as one tree, likeliest nodes first and so parents before their children. Where
    drafts agree on a token, the surer one counts."""
    roots: dict[int, Node] = {}
    nodes: list[Node] = []
    for draft in drafts:
        placed: list[Node] = []
        for i, token in enumerate(draft.tokens):
            parent = placed[draft.parent(i)] if draft.parent(i) != ROOT else None
            siblings = roots if parent is None else parent.children
            source, probability = draft.source(i), draft.probabilities[i]
            own = chance(source, probability) * (1.0 if parent is None else parent.chance)
            node = siblings.get(token)
            if node is None:
                node = siblings[token] = Node(token, source, probability, own, parent)
                nodes.append(node)
            elif own > node.chance:
                node.source, node.probability, node.chance = source, probability, own
            placed.append(node)
    # A node that a later draft made likelier must not pass its parent by.
    for node in nodes:
        if node.parent is not None:
            node.chance = min(node.chance, node.parent.chance)
    order = {id(node): i for i, node in enumerate(nodes)}
    return sorted(nodes, key=lambda node: (-node.chance, order[id(node)]))


def best_chain(nodes: Sequence[Node]) -> list[Node]:
    """The chain that follows the likeliest candidate at every token."""
    chain: list[Node] = []
    parent: Node | None = None
    for node in nodes:  # likeliest first, so the first child met is the likeliest
        if node.parent is parent:
            chain.append(node)
            parent = node
    return chain


def worth_verifying(
    nodes: Sequence[Node],
    counts: Sequence[int],
    step: Callable[[int], float],
    rate: float,
) -> tuple[int, float]:
    """How many of the first nodes to verify.

    Args:
        nodes: likeliest first.
        counts: the numbers of nodes to choose from, ascending, at least 1 each.
        step: seconds of a full step with that many drafted tokens.
        rate: tokens per second that time is worth.

    Returns:
        The number n that maximises ``expected accepted tokens - rate * step(n)``, and that gain
        over drafting nothing, in tokens.
    """
    best, best_gain, accepted, summed = 0, 0.0, 0.0, 0
    nothing = step(0)
    for n in counts:
        if n > len(nodes):
            break
        accepted += sum(node.chance for node in nodes[summed:n])
        summed = n
        gain = accepted - rate * (step(n) - nothing)
        if gain > best_gain:
            best, best_gain = n, gain
    return best, best_gain


def as_draft(nodes: Sequence[Node]) -> Draft:
    """Nodes, with every one's parent among them, as a draft whose first row is the likeliest
    chain."""
    chosen = {id(node) for node in nodes}
    row = best_chain(nodes)
    in_row = {id(node) for node in row}
    ordered = [*row, *(node for node in nodes if id(node) not in in_row)]
    index = {id(node): i for i, node in enumerate(ordered)}
    parents = []
    for node in ordered:
        if node.parent is not None and id(node.parent) not in chosen:
            raise ValueError("a node without its parent")
        parents.append(ROOT if node.parent is None else index[id(node.parent)])
    return Draft(
        tuple(node.token for node in ordered),
        tuple(node.probability for node in ordered),
        tuple(parents),
        tuple(node.source for node in ordered),
    )
