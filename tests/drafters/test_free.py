"""Drafts from a source: what is likely enough, as a tree only where trees are verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from trees import path_probabilities

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.free import FreeDrafter
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.engine.draft import Draft


class Text:
    """As much of a session as a source needs."""

    def __init__(self, tokens: Sequence[int], verifies_trees: bool) -> None:
        self.tokens = list(tokens)
        self.verifies_trees = verifies_trees

    def __len__(self) -> int:
        return len(self.tokens)


BRANCHES = [1, 2, 3, 9, 1, 2, 4, 9, 1, 2, 3, 8, 1]


@pytest.mark.parametrize("trees", [False, True])
def test_a_tree_only_where_trees_are_verified(trees: bool) -> None:
    session: Any = Text(BRANCHES, trees)
    draft = FreeDrafter(LookupSource(), least=0.05).draft(session, [2], 8)
    assert draft.is_chain is not trees
    assert draft.tokens[0] == 3 and set(draft.sources) == {"lookup"}
    assert all(p >= 0.05 for p in path_probabilities(draft))


def test_the_draft_ends_where_it_becomes_unlikely() -> None:
    session: Any = Text(list(range(30)) * 2, False)
    lengths = []
    for least in (0.1, 0.5, 0.9, 0.99):
        draft = FreeDrafter(LookupSource(), least=least, max_draft=20).draft(session, [0], 32)
        lengths.append(len(draft.tokens))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 20 and lengths[-1] == 0
    assert len(FreeDrafter(LookupSource()).draft(session, [0], 3).tokens) == 3
    assert FreeDrafter(LookupSource()).draft(session, [0], 0) == Draft()


def test_the_source_hears_of_every_round() -> None:
    heard = []

    class Source(LookupSource):
        def learn(self, session: Any, round: Round) -> None:
            heard.append(round)

    drafter = FreeDrafter(Source())
    round = Round((1,), Draft(), (), 2, generated=3)
    drafter.learn(Text([], False), round)  # type: ignore[arg-type]
    assert heard == [round]
    assert drafter.report() == {"source": "lookup"}
