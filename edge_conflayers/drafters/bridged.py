"""Drafts over bridges: half of the layers replaced by a taught map."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge_conflayers.bridges.bridge import Bridges, Floats
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.drafters.leaves import MOST, with_leaves
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import Session, TextSession
from edge_conflayers.engine.session.bridges import bridge_states, set_bridges
from edge_conflayers.errors import BadInput

NAME = "bridged"
"""Source of these drafts' tokens."""

_LEAF_PROBABILITY = 0.15
"""Alternatives to drafted tokens that are at least this likely, together with the tokens before
them, are verified as leaves. With leaves 1.34 over plain, without 1.28 (0.5B, nine Spec-Bench
prompts of up to 64 tokens in turns, 2026-11-28, on a busy machine)."""


class BridgedDrafter:
    """Drafts over bridges, from the states that verification has left at the token before.

    The first round of a text decodes plainly, since a prompt's step keeps no states.

    Args:
        bridges: what to draft over, and when to stop.
        vocabulary: the draft vocabulary; None for all tokens.
    """

    def __init__(
        self,
        bridges: Bridges,
        vocabulary: DraftVocabulary | None = None,
        *,
        leaf_probability: float | None = _LEAF_PROBABILITY,
    ) -> None:
        self.bridges = bridges
        self.vocabulary = vocabulary
        self.leaf_probability = leaf_probability
        self._mask = bridges.mask
        self._session: TextSession | None = None  # that has the bridges
        self._before: Floats | None = None  # states of the text's last tokens but the pending ones

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Drafter.begin``.

        Raises:
            BadInput: the model cannot be served.
        """
        self._before = None
        if session is not self._session:
            self._session = None
            set_bridges(
                _with_states(session),
                [(each.begin, each.end, each.weights) for each in self.bridges.bridges],
            )
            self._session = session
        if self.vocabulary is not None:
            with contextlib.suppress(BadInput):  # no memory, or an LM head not served
                self.vocabulary.begin(session, prompt)

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        if self._before is None or len(self._before) < len(pending):
            return Draft()
        prediction = self.bridges.prediction
        leaves = self.leaf_probability is not None and session.verifies_trees
        draft = _with_states(session).draft(
            self._mask,
            pending,
            limit=min(limit, prediction.max_draft),
            stop_probability=prediction.stop_probability,
            runners_up=MOST if leaves else 0,
            before=self._before[-len(pending) :],
        )
        if self.leaf_probability is not None:
            draft = with_leaves(draft, limit, self.leaf_probability)
        return replace(draft, sources=(NAME,) * len(draft.tokens))

    def learn(self, session: TextSession, round: Round) -> None:
        """Keeps the states of the tokens that the round has verified."""
        n = len(round.pending)
        rows = [*range(n), *(n + i for i in round.path)]
        self._before = bridge_states(_with_states(session), rows, len(self.bridges.bridges))
        if session.draft_vocabulary and self.vocabulary is not None:
            with contextlib.suppress(BadInput):
                self.vocabulary.observe(session, round.drawn)

    def report(self) -> dict[str, Any]:
        prediction = self.bridges.prediction
        return {
            "blocks": self.bridges.blocks,
            "predicted_speedup": prediction.speed,
            "stop_probability": prediction.stop_probability,
            "max_draft": prediction.max_draft,
        }


def _with_states(session: TextSession) -> Session:
    if not isinstance(session, Session):
        raise BadInput("this model shows no hidden states; use another method")
    return session
