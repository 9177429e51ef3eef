"""The arm that drafts with a second model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import Plan, Prior
from edge_conflayers.controller.expected_gain import ExpectedGain
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_model import NAME
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.drafters.second_model import OwnSession, align, follow
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import NO_MASK, TextSession
from edge_conflayers.errors import BadInput

_VOCABULARY = 16384  # tokens that it drafts among: a tenth of a head over 150,000; not tuned
_MAX_UNREAD = 16  # tokens of the text that it reads together with the last one; not tuned
# What is expected before the first draft; its time is measured. Not tuned.
_DRAFTED, _ACCEPTED = 3.0, 2.0


class DraftModelArm:
    """Drafts with a second model, from a draft vocabulary.

    Args:
        model: as for DraftModelDrafter.
        acceptance: rates by probability, kept up to date by the controller.
        max_draft: most tokens in a draft; not tuned.
    """

    def __init__(
        self, model: LanguageModel, acceptance: AcceptanceRates, *, max_draft: int = 15
    ) -> None:
        self.model = model
        self._own = OwnSession(model)
        self._vocabulary = DraftVocabulary(model, size=_VOCABULARY)
        self._gain = ExpectedGain(NAME, acceptance, max_draft)
        self._shortened = True  # whether it drafts from that vocabulary
        self._timed = False

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Arm.begin``."""
        own = self._own.session_for(session)
        follow(own, session.tokens)
        if self._shortened:
            try:
                self._vocabulary.begin(own, prompt)
                if not self._timed:
                    _draft_one(own)  # only its graph tells whether the head can be served
            except BadInput:  # it drafts from all tokens
                self._shortened = False
                own.set_draft_vocabulary(())
        if self._timed:
            self._gain.begin_text()
        else:
            self._gain.restart(Prior(_ACCEPTED, _DRAFTED, seconds=_draft_one(own)))
            self._timed = True

    def plan(
        self,
        times: StepTimes,
        n_pending: int,
        limit: int,
        *,
        tokens_per_second: float,
        budget: float,
    ) -> Plan:
        """See ``Arm.plan``."""
        return self._gain.plan(
            times, n_pending, limit, tokens_per_second=tokens_per_second, budget=budget
        )

    def draft(
        self,
        session: TextSession,
        pending: Sequence[int],
        limit: int,
        times: StepTimes,
        tokens_per_second: float,
    ) -> Draft:
        """See ``Arm.draft``."""
        own = self._own.session_for(session)
        text = [*session.tokens, *pending]
        if len(text) > own.n_ctx or not align(own, text):
            return Draft()
        if len(text) - len(own) > _MAX_UNREAD:
            own.read(text[len(own) : -1])
        draft = self._gain.draft(
            *(own, NO_MASK, text[len(own) :], limit),
            times=times,
            tokens_per_second=tokens_per_second,
            n_pending=len(pending),
            keep=True,
        )
        known = takewhile(lambda token: token < session.model.n_vocab, draft.tokens)
        return draft.first(sum(1 for _ in known))

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        self._gain.observe(round)
        own = self._own.session
        if own is not None:
            with contextlib.suppress(BadInput):
                self._vocabulary.observe(own, round.drawn)

    def report(self) -> dict[str, Any]:
        return {"draft_model": self.model.path.name}

    def close(self) -> None:
        """Frees its session."""
        self._own.close()


def _draft_one(session: TextSession) -> float:
    """Seconds of drafting one token, which is taken back."""
    began = time.perf_counter()
    session.draft(NO_MASK, session.tokens[-1:], limit=1, stop_probability=0.0)
    return time.perf_counter() - began
