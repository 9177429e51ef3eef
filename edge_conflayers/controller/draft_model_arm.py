"""A second model as the controller weighs it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceChances
from edge_conflayers.controller.arm import Expectations, Plan, Prior
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_model import NAME
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.drafters.second_model import OwnSession, align, follow
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, Session
from edge_conflayers.errors import BadInput

_VOCABULARY = 16384  # tokens; of an LM head over 150,000 it leaves a tenth
_MOST_UNREAD = 16  # tokens that are read together with the last one
_DRAFTED, _ACCEPTED = 3.0, 2.0  # tokens a round, before there were any


class DraftModelArm:
    """A second model as the controller weighs it. It drafts from a draft vocabulary.

    Args:
        model: as for DraftModelDrafter.
        calibration: chances of acceptance by probability, kept by the controller.
        max_draft: most tokens in a draft.
    """

    def __init__(
        self,
        model: Model,
        calibration: AcceptanceChances,
        *,
        max_draft: int = 15,
    ) -> None:
        self.model = model
        self._own = OwnSession(model)
        self._vocabulary = DraftVocabulary(model, size=_VOCABULARY)
        self._expected = Expectations(NAME, calibration, max_draft)
        self._shortened = True  # whether it drafts from that vocabulary
        self._timed = False

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        """A text begins, whose prompt the session holds."""
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
            self._expected.begin_text()
        else:
            self._expected.restart(Prior(_ACCEPTED, _DRAFTED, seconds=_draft_one(own)))
            self._timed = True

    def plan(self, rate: float, times: StepTimes, n_pending: int, limit: int, spare: float) -> Plan:
        """See ``Arm.plan``."""
        return self._expected.plan(rate, times, n_pending, limit, spare)

    def draft(
        self, session: Session, pending: Sequence[int], limit: int, rate: float, times: StepTimes
    ) -> Draft:
        """See ``Arm.draft``."""
        own = self._own.session_for(session)
        text = [*session.tokens, *pending]
        if len(text) > own.n_ctx or not align(own, text):
            return Draft()
        if len(text) - len(own) > _MOST_UNREAD:
            own.read(text[len(own) : -1])
        draft = self._expected.draft(
            *(own, NO_MASK, text[len(own) :], limit),
            rate=rate,
            times=times,
            n_pending=len(pending),
            keep=True,
        )
        known = takewhile(lambda token: token < session.model.n_vocab, draft.tokens)
        return draft.first(sum(1 for _ in known))

    def observe(self, round: Round) -> None:
        """See ``Arm.observe``."""
        self._expected.observe(round)
        own = self._own.session
        if own is not None:
            with contextlib.suppress(BadInput):
                self._vocabulary.observe(own, round.drawn)

    def report(self) -> dict[str, Any]:
        return {"draft_model": self.model.path.name}

    def close(self) -> None:
        """Frees its session."""
        self._own.close()


def _draft_one(session: Session) -> float:
    """Seconds of drafting one token, which is taken back."""
    began = time.perf_counter()
    session.draft(NO_MASK, session.tokens[-1:], limit=1, stop_probability=0.0)
    return time.perf_counter() - began
