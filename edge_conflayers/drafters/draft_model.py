"""Drafts by a second, smaller model (Leviathan et al., arXiv 2211.17192), the usual alternative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.second_model import OwnSession, follow
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import TextSession

NAME = "draft-model"
"""Source of these drafts' tokens."""


class DraftModelDrafter:
    """Drafts greedily by a second model, whose session follows the text.

    Args:
        model: has the vocabulary of the model that it drafts for; stays open as long as the
            drafter.
        stop_probability: a token less likely than this ends the draft and is not in it. Not tuned.
        max_draft: most tokens in a draft. Not tuned.
    """

    def __init__(
        self, model: LanguageModel, *, stop_probability: float = 0.6, max_draft: int = 8
    ) -> None:
        self.model = model
        self.stop_probability = stop_probability
        self.max_draft = max_draft
        self._own = OwnSession(model)

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        follow(self._own.session_for(session), session.tokens)

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        own = self._own.session_for(session)
        limit = min(limit, self.max_draft, own.n_ctx - len(session) - len(pending) + 1)
        if limit <= 0 or not follow(own, [*session.tokens, *pending]):
            return Draft()
        tokens: list[int] = []
        probabilities: list[float] = []
        while True:
            token, probability = own.best()
            if probability < self.stop_probability or token >= session.model.n_vocab:
                break
            tokens.append(token)
            probabilities.append(probability)
            if len(tokens) == limit or session.model.ends_text(token):
                break
            own.step([token])
        return Draft(tuple(tokens), tuple(probabilities), sources=(NAME,) * len(tokens))

    def learn(self, session: TextSession, round: Round) -> None:
        """See ``Drafter.learn``; the next draft rolls its session back as far as it must."""

    def report(self) -> dict[str, Any]:
        return {"draft_model": self.model.path.name}

    def close(self) -> None:
        """Frees the second model's session."""
        self._own.close()
