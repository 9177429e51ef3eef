"""Candidates foreseen by a next-state head (``next_state.py``): what may follow the token just
drawn, as siblings."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.session import Session
from edge_conflayers.engine.session.head import (
    drawn_from,
    keep_inner_state,
    next_tokens,
    set_next_state,
)
from edge_conflayers.errors import BadInput
from edge_conflayers.next_state.head import NextStateHead, inner_layer

NAME = "next-state"
PAYS_FROM = 0.007
"""Seconds of a one-token step from which on asking is worth its time: with less, Python's part and
the copies of states weigh too much."""

_WIDTH = 8  # siblings
_NO_DRAFT = Draft()
# Whether asking pays, in one-token steps a round: a running mean that starts with a little trust.
_TRUST = 0.2
_NEWEST = 0.03  # the last round's weight in it
_RECENT = 9
_WAKES = 6  # while it does not pay, one of so many rounds asks


class NextStateSource:
    """Proposes the tokens that the head holds likeliest.

    Asking the head takes a few hundredths of a step. What it brings is followed whether or not
    anything is verified, and while it does not pay it is seldom asked.

    Args:
        head: of the sessions' model.
        clock: seconds, for tests.
    """

    name = NAME
    calibrated = False
    learns_always = True

    def __init__(
        self, head: NextStateHead, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.head = head
        self._clock = clock
        self.weighed_seconds = 0.0
        self._pays = _TRUST
        self._session: Session | None = None
        self._times: StepTimes | None = None
        self._state: npt.NDArray[np.float32] | None = None  # that the last token was drawn from
        self._follows = 0  # tokens of prompt and text with the one drawn from the state
        self._prompt = 0  # tokens before the text
        self._length = 0  # of prompt and text
        self._last = 0  # token of the text
        self._answer: Draft | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT)  # of asking
        self._slept = 0

    def begin(self, session: Session, times: StepTimes) -> bool:
        """Called after a prompt was read, before anything else runs on the session.

        Returns:
            Whether the session can be served; if not, the source is not to be used for it.
        """
        try:
            if self._session is not session:
                set_next_state(session.context, self.head.weights)
                keep_inner_state(session.context, inner_layer(session.model.n_layer))
        except BadInput:
            self._session = None
            return False
        self._session, self._times, self._prompt = session, times, len(session)
        self._state = self._answer = None  # reading a prompt keeps no inner state
        return True

    def _remember(self, session: Session, index: int, follows: int) -> None:
        try:
            self._state = drawn_from(session.context, index, session.model.n_embd)
        except BadInput:
            self._state = None
        self._follows = follows
        self._answer = None

    def observe(self, session: Session, pending: Sequence[int]) -> None:
        """See ``CandidateSource.observe``."""
        self.weighed_seconds = 0.0
        self._length = len(session) + len(pending)
        self._last = pending[-1] if pending else -1

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        """See ``CandidateSource.candidates``; probabilities are the head's own."""
        if limit <= 0 or self._state is None or self._follows != self._length:
            return _NO_DRAFT
        if self._answer is None:
            self._answer = self._ask()
        probabilities = self._answer.probabilities
        n = min(limit, sum(each >= least for each in probabilities))
        n = min(n, 1) if chain else n
        return Draft(
            self._answer.tokens[:n], probabilities[:n], (ROOT,) * n, self._answer.sources[:n]
        )

    def _ask(self) -> Draft:
        if self._pays < 0:
            self._slept += 1
            if self._slept % _WAKES:
                return _NO_DRAFT
        assert self._session is not None and self._state is not None
        began = self._clock()
        try:
            tokens, probabilities = next_tokens(
                self._session.context, self._state, self._last, _WIDTH
            )
        except BadInput:  # no draft vocabulary, or no memory for one
            return _NO_DRAFT
        self.weighed_seconds = self._clock() - began
        self._seconds.append(self.weighed_seconds)
        n = sum(each > 0 for each in probabilities)  # some may be too small for a float
        tokens, probabilities = tokens[:n], probabilities[:n]
        return Draft(tuple(tokens), tuple(probabilities), (ROOT,) * n, (NAME,) * n)

    def learn(self, session: Session, round: Round) -> None:
        """See ``CandidateSource.learn``."""
        if self._answer is not None and self._answer.tokens:
            self._judge(self._answer, round.drawn[0])
        node = round.path[-1] if round.path else ROOT
        self._remember(session, len(round.pending) + node, self._prompt + round.generated)

    def _judge(self, answer: Draft, drawn: int) -> None:
        """Whether the best few siblings would have won more than asking and verifying takes."""
        times = self._times
        assert times is not None
        n = best_width(answer.probabilities, times)
        asking = median(self._seconds) / times.t1
        won = (drawn in answer.tokens[:n]) - (times.v(1 + n) - 1) - asking
        self._pays += _NEWEST * (won - self._pays)


def best_width(probabilities: Sequence[float], times: StepTimes) -> int:
    """How many siblings to verify together by their probabilities and V(n), if nothing else is."""
    gains = [sum(probabilities[:n]) - (times.v(1 + n) - 1) for n in range(len(probabilities) + 1)]
    return max(range(len(gains)), key=gains.__getitem__)
