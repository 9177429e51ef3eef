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
        own: the chance that it is accepted if its parent is.
        chance: that it and all its ancestors are accepted.
    """

    token: int
    source: str
    probability: float
    own: float
    parent: Node | None = field(repr=False)
    chance: float = 0.0
    children: dict[int, Node] = field(default_factory=dict, repr=False)


def merge(drafts: Iterable[Draft], chance: Chance) -> list[Node]:
    """All drafts as one tree, likeliest nodes first and so parents before their children.

    Sources are taken to err independently: a token that several propose is accepted unless all of
    them are wrong, and one that an earlier draft does not propose can only have the probability
    that its proposals leave.
    """
    roots: dict[int, Node] = {}
    nodes: list[Node] = []
    for draft in drafts:
        placed: list[Node] = []
        left: dict[int, float] = {}  # by parent, the probability that earlier drafts leave
        for i, token in enumerate(draft.tokens):
            parent = placed[draft.parent(i)] if draft.parent(i) != ROOT else None
            siblings = roots if parent is None else parent.children
            if draft.parent(i) not in left:
                proposed = sum(node.own for node in siblings.values())
                left[draft.parent(i)] = max(0.0, 1.0 - proposed)
            source, probability = draft.source(i), draft.probabilities[i]
            own = chance(source, probability)
            node = siblings.get(token)
            if node is None:
                own *= left[draft.parent(i)]
                node = siblings[token] = Node(token, source, probability, own, parent)
                nodes.append(node)
            else:
                if own > node.own:
                    node.source, node.probability = source, probability
                node.own = 1.0 - (1.0 - node.own) * (1.0 - own)
            placed.append(node)
    for node in nodes:
        node.chance = node.own * (1.0 if node.parent is None else node.parent.chance)
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
