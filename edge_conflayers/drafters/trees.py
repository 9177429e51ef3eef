"""Trees of candidate tokens, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from edge_conflayers.draft import ROOT, Draft

State = TypeVar("State")
Successors = Callable[[State, float], Sequence[tuple[int, float, State]]]
"""What may follow a state: different tokens, the probability of each, in (0, 1], and the state that
it leads to, likeliest first. Those less likely than the second argument may be left out."""


def best_first(
    root: State,
    successors: Successors[State],
    limit: int,
    *,
    source: str,
    least: float = 0.0,
    chain: bool = False,
) -> Draft:
    """The likeliest nodes of the tree that ``successors`` spans from a root.

    Args:
        limit: most nodes.
        source: who proposes them.
        least: probability of its whole path under which a node is left out.
        chain: only the likeliest successor of each node.

    Returns:
        A node's first child is its likeliest and comes right after it.
    """
    nodes: list[tuple[int, float, int]] = []  # token, probability, parent
    # Of each waiting node: path probability (negative, heapq gives the smallest), a number that
    # keeps ties in order, its parent, the parent's path probability and successors, its own place
    # among those. Siblings wait until the likelier one was taken.
    heap: list[tuple[float, int, int, float, Sequence[tuple[int, float, State]], int]] = []
    number = count()

    def wait(
        parent: int, path: float, options: Sequence[tuple[int, float, State]], place: int
    ) -> None:
        if place < len(options):
            whole = path * options[place][1]
            if whole >= least and whole > 0:
                heappush(heap, (-whole, next(number), parent, path, options, place))

    if limit > 0:
        wait(ROOT, 1.0, successors(root, least), 0)
    while heap and len(nodes) < limit:
        negative, _, parent, path, options, place = heappop(heap)
        token, probability, state = options[place]
        index = len(nodes)
        nodes.append((token, probability, parent))
        if not chain:
            wait(parent, path, options, place + 1)
        if len(nodes) < limit:
            wait(index, -negative, successors(state, least / -negative), 0)
    return _in_rows(nodes, source)


def _in_rows(nodes: Sequence[tuple[int, float, int]], source: str) -> Draft:
    """Nodes in the order of a walk that goes down first."""
    children: list[list[int]] = [[] for _ in range(len(nodes) + 1)]  # the last list is ROOT's
    for index, (_, _, parent) in enumerate(nodes):
        children[parent].append(index)
    order: list[int] = []
    waiting = children[ROOT][::-1]
    while waiting:
        index = waiting.pop()
        order.append(index)
        waiting.extend(reversed(children[index]))
    place = {index: n for n, index in enumerate(order)}
    place[ROOT] = ROOT
    return Draft(
        tuple(nodes[i][0] for i in order),
        tuple(nodes[i][1] for i in order),
        tuple(place[nodes[i][2]] for i in order),
        (source,) * len(order),
    )
