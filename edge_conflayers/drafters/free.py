"""Drafts from one source of candidates, without a step of any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import TextSession


class FreeDrafter:
    """Drafts the likeliest candidates: a tree if the session verifies trees, else a chain.

    Args:
        source: where the candidates come from.
        least: probability under which a token, with all before it, is not drafted. One more token
            usually adds a tenth to a quarter to a step. Not tuned.
        max_draft: most tokens in a draft; not tuned.
    """

    def __init__(self, source: CandidateSource, *, least: float = 0.3, max_draft: int = 16) -> None:
        self.source = source
        self.least = least
        self.max_draft = max_draft

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        self.source.observe(session, ())

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        self.source.observe(session, pending)
        self.source.look_ahead()
        return self.source.candidates(
            min(limit, self.max_draft),
            least=self.least,
            chain=not session.verifies_trees,
        )

    def learn(self, session: TextSession, round: Round) -> None:
        self.source.learn(session, round)

    def report(self) -> dict[str, Any]:
        return {"source": self.source.name}
