"""Candidates by a next-state head: a tree of tokens that may follow the one just drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.asking import Asking, Rates, StepTimes, depth_of
from edge_conflayers.drafters.native_source import GivenSource
from edge_conflayers.engine.draft import NO_DRAFT, ROOT, Draft
from edge_conflayers.engine.session import Session, TextSession
from edge_conflayers.engine.session.next_state_head import (
    drawn_from,
    keep_inner_state,
    next_tree,
    set_next_state,
)
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.next_state.head import NextStateHead, inner_layer

NAME = "next-state"
PAYS_FROM = 0.007
"""Seconds of a one-token step from which on asking the head is worth its time. On Gemma (5.6 ms)
and SmolLM2 (2.5 ms) it cost what it brought: 1.02 to 1.09 without, 2026-11-25."""


def head_pays(t1: float) -> bool:
    """Whether asking a head is worth its time where a one-token step takes ``t1`` seconds."""
    return t1 >= PAYS_FROM


class NextStateSource(GivenSource):
    """Proposes the tokens that the head holds likeliest.

    Asking the head takes a few hundredths of a step. What it would bring is followed whether or
    not its tokens are verified, and while it does not pay it is seldom asked (``asking``).

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
        self._asking = Asking(NAME)
        self._session: Session | None = None
        self._state: npt.NDArray[np.float32] | None = None  # that the last token was drawn from
        self._follows = 0  # length of prompt and text with the token drawn from that state
        self._prompt = 0  # tokens before the text
        self._length = 0  # of prompt and text
        self._last = 0  # token of the text
        self._answer: Draft | None = None  # to the last question, if it still holds

    def begin(self, session: TextSession, times: StepTimes, rates: Rates) -> bool:
        """Starts a text, right after its prompt was read.

        Args:
            times, rates: of full-model steps, and of the tokens proposed here; kept up to date.

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
        self._session, self._prompt = session, len(session)
        self._asking.begin_text(times, rates)
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
        self.give(self._answer or NO_DRAFT)
        return seconds

    def _ask(self, state: npt.NDArray[np.float32]) -> tuple[Draft | None, float]:
        """Its tokens, and the seconds that it took; None for tokens if it was not asked."""
        if not self._asking.due:
            return None, 0.0
        assert self._session is not None
        began = self._clock()
        try:
            tokens, probabilities, parents = next_tree(
                self._session.context, state, self._last, self._asking.options()
            )
        except BadInput:  # no draft vocabulary, or no memory for one
            return None, 0.0
        seconds = self._clock() - began
        answer = Draft(tuple(tokens), tuple(probabilities), tuple(parents), (NAME,) * len(tokens))
        self._asking.asked(seconds, depth_of(answer))
        return answer, seconds

    def learn(self, session: TextSession, round: Round) -> None:
        """See ``CandidateSource.learn``."""
        if self._answer is not None:
            self._asking.learn(self._answer, round.drawn)
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
