"""Self-speculation: drafts by the model itself with some of its layers dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.leaves import MOST, with_leaves
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import TextSession
from edge_conflayers.layer_search import PacedSearch, SkipSetSearch

NAME = "layers"
"""Source of these drafts' tokens."""


def report_of(search: SkipSetSearch) -> dict[str, Any]:
    """What to report of a search, JSON-able."""
    mask = search.mask
    return {
        "skip_set": sorted(mask.attention & mask.mlp),
        "attention_dropped": sorted(mask.attention),
        "mlp_dropped": sorted(mask.mlp),
        "search_finished": search.finished,
    }


class LayersDrafter:
    """Drafts under the skip set that a search has found so far, and goes on with the search.

    Args:
        search: finds skip sets.
        stop_probability: a drafted token less likely than this ends the draft.
        max_draft: most tokens in the chain of a draft.
        leaf_probability: alternatives to drafted tokens that are at least this likely, together
            with the tokens before them, are verified as leaves, if the session verifies trees;
            None for no leaves.
    """

    def __init__(
        self,
        search: SkipSetSearch,
        *,
        stop_probability: float,
        max_draft: int,
        leaf_probability: float | None = None,
    ) -> None:
        self.search = search
        self.stop_probability = stop_probability
        self.max_draft = max_draft
        self.leaf_probability = leaf_probability

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Drafter.begin``; nothing to prepare."""

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        if not self.search.mask:
            return Draft()
        leaves = self.leaf_probability is not None and session.verifies_trees
        draft = session.draft(
            self.search.mask,
            pending,
            limit=min(limit, self.max_draft),
            stop_probability=self.stop_probability,
            runners_up=MOST if leaves else 0,
        )
        if self.leaf_probability is not None:
            draft = with_leaves(draft, limit, self.leaf_probability)
        return replace(draft, sources=(NAME,) * len(draft.tokens))

    def learn(self, session: TextSession, round: Round) -> None:
        self.search.observe(round)
        self.search.advance(session)

    def report(self) -> dict[str, Any]:
        return report_of(self.search)


class PacedLayersDrafter(LayersDrafter):
    """A LayersDrafter whose search also chooses the draft length, up to ``max_draft``."""

    search: PacedSearch

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        return super().draft(session, pending, min(limit, self.search.draft_length))
