"""What statistics count of drafts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.draft import ROOT, Draft


def test_positions_of_chains_and_trees() -> None:
    stats = Stats()
    stats.add_draft(Draft((5, 6, 7)))
    for position in range(2):
        stats.add_accepted(position)
    stats.add_draft(Draft((5, 6, 7, 8), parents=(ROOT, 0, 0, ROOT)))  # two levels
    stats.add_accepted(0)
    stats.add_draft(Draft())
    assert (stats.rounds, stats.drafted, stats.accepted) == (3, 7, 3)
    assert stats.drafted_at == [2, 2, 1]
    assert stats.accepted_at == [2, 1, 0]


@given(st.lists(st.integers(0, 40), max_size=30))
def test_the_depth_of_a_tree_is_its_longest_branch(choices: list[int]) -> None:
    parents = tuple(choice % (i + 1) - 1 for i, choice in enumerate(choices))
    longest = 0
    for node in range(len(parents)):
        length, at = 1, node
        while parents[at] != ROOT:
            length, at = length + 1, parents[at]
        longest = max(longest, length)
    tree = Draft(tuple(range(len(parents))), parents=parents)
    assert tree.depth == longest
    assert Draft(tree.tokens).depth == len(parents)
