"""Candidates by a next-state head: siblings that may follow the token just drawn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.native_source import GivenSource
from edge_conflayers.engine.draft import NO_DRAFT, ROOT, Draft
from edge_conflayers.engine.session import Session, TextSession
from edge_conflayers.engine.session.next_state_head import (
    drawn_from,
    keep_inner_state,
    next_tokens,
    set_next_state,
)
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.next_state.head import NextStateHead, inner_layer

NAME = "next-state"
PAYS_FROM = 0.007
"""Seconds of a one-token step from which on asking the head is worth its time. On Gemma (5.6 ms)
and SmolLM2 (2.5 ms) it cost what it brought: 1.02 to 1.09 without, 2026-11-25."""

_WIDTH = 8  # siblings; not tuned
# Whether asking pays, in one-token steps a round: a running mean that starts with some trust. 0.2
# is 2.6 steps spent on a head that is always wrong. Not tuned.
_TRUST = 0.2
_NEWEST = 0.03  # the last round's weight in that mean; not tuned
_RECENT = 9  # times whose median is what asking takes; not tuned
_RETRY_EVERY = 6  # rounds of which one asks while asking does not pay; not tuned


class StepTimes(Protocol):
    """What steps of the full model take."""

    @property
    def t1(self) -> float:
        """Seconds of a one-token step."""
        ...

    def v(self, n: int) -> float:
        """The time of a step over n tokens, in units of ``t1``."""
        ...


class NextStateSource(GivenSource):
    """Proposes the tokens that the head holds likeliest.

    Asking the head takes a few hundredths of a step. What it would bring is followed whether or
    not its tokens are verified, and while it does not pay it is seldom asked.

    Args:
        head: of the sessions' model.
        clock: seconds, for tests.
    """

    learns_always = True

    def __init__(
        self, head: NextStateHead, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(NAME)
        self.head = head
        self._clock = clock
        self._pays = _TRUST
        self._session: Session | None = None
        self._times: StepTimes | None = None
        self._state: npt.NDArray[np.float32] | None = None  # that the last token was drawn from
        self._follows = 0  # length of prompt and text with the token drawn from that state
        self._prompt = 0  # tokens before the text
        self._length = 0  # of prompt and text
        self._last = 0  # token of the text
        self._answer: Draft | None = None  # to the last question, if it still holds
        self._seconds: deque[float] = deque(maxlen=_RECENT)  # of asking
        self._slept = 0

    def begin(self, session: TextSession, times: StepTimes) -> bool:
        """Starts a text, right after its prompt was read.

        Returns:
            Whether the session can be served; if not, the source must not be used for it.
        """
        if not isinstance(session, Session):
            return False  # another engine's, which shows no states
        try:
            if self._session is not session:
                set_next_state(session.context, self.head.weights)
                keep_inner_state(session.context, inner_layer(session.model.n_layer))
        except BadInput:
            self._session = None
            return False
        self._session, self._times, self._prompt = session, times, len(session)
        self._state = None  # reading a prompt keeps no inner state
        self._forget_answer()
        return True

    def observe(self, session: TextSession, pending: Sequence[int]) -> None:
        """See ``CandidateSource.observe``."""
        self._length = len(session) + len(pending)
        self._last = pending[-1] if pending else -1
        if self._follows != self._length:
            self._forget_answer()

    def look_ahead(self) -> float:
        """See ``CandidateSource.look_ahead``: asks the head, once a round."""
        if self._answer is not None or self._state is None or self._follows != self._length:
            return 0.0
        self._answer, seconds = self._ask(self._state)
        self.give(self._answer)
        return seconds

    def _ask(self, state: npt.NDArray[np.float32]) -> tuple[Draft, float]:
        """Its tokens, and the seconds that it took."""
        if self._pays < 0:
            self._slept += 1
            if self._slept % _RETRY_EVERY:
                return NO_DRAFT, 0.0
        assert self._session is not None
        began = self._clock()
        try:
            tokens, probabilities = next_tokens(self._session.context, state, self._last, _WIDTH)
        except BadInput:  # no draft vocabulary, or no memory for one
            return NO_DRAFT, 0.0
        seconds = self._clock() - began
        self._seconds.append(seconds)
        n = sum(each > 0 for each in probabilities)  # some may be too small for a float
        tokens, probabilities = tokens[:n], probabilities[:n]
        return Draft(tuple(tokens), tuple(probabilities), (ROOT,) * n, (NAME,) * n), seconds

    def learn(self, session: TextSession, round: Round) -> None:
        """See ``CandidateSource.learn``."""
        if self._answer is not None and self._answer.tokens:
            self._judge(self._answer, round.drawn[0])
        node = round.path[-1] if round.path else ROOT
        self._remember(session, len(round.pending) + node)
        self._follows = self._prompt + round.generated

    def _remember(self, session: TextSession, index: int) -> None:
        """Keeps the state of one output of the last step."""
        assert isinstance(session, Session)
        try:
            self._state = drawn_from(session.context, index, session.model.n_embd)
        except EdgeConflayersError:
            self._state = None
        self._forget_answer()

    def _forget_answer(self) -> None:
        if self._answer is not None:
            self._answer = None
            self.give(NO_DRAFT)

    def _judge(self, answer: Draft, drawn: int) -> None:
        """Takes in whether the best few siblings would have won more than asking and verifying
        them takes."""
        times = self._times
        assert times is not None
        n = best_width(answer.probabilities, times)
        asking = median(self._seconds) / times.t1
        won = (drawn in answer.tokens[:n]) - (times.v(1 + n) - 1) - asking
        self._pays += _NEWEST * (won - self._pays)


def best_width(probabilities: Sequence[float], times: StepTimes) -> int:
    """The number of siblings that are worth verifying together, if nothing else is verified."""
    gains = [sum(probabilities[:n]) - (times.v(1 + n) - 1) for n in range(len(probabilities) + 1)]
    return max(range(len(gains)), key=gains.__getitem__)
