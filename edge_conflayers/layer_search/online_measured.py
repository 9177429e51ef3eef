"""The measured search during generation: a candidate now and then, within a share of the time."""

from __future__ import annotations

import time

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import TextSession
from edge_conflayers.layer_search import ranking
from edge_conflayers.layer_search.measured import Found, MeasuredSearch, Memory
from edge_conflayers.layer_search.replays import replay_records

_RENEWAL = 4  # windows of new text after which candidates are judged over new text; not tuned
_FIRST_COST = 12  # time of the first candidate, in verification steps; not tuned
_MOST_SAVED = 4  # most candidates whose time is saved up; not tuned


class OnlineMeasuredSearch(MeasuredSearch):
    """A measured search that runs during generation (``observe`` and ``advance`` as in
    ``SkipSetSearch``).

    Candidates are judged over the last generated tokens. Arguments and errors are those of
    ``MeasuredSearch``.
    """

    _seconds: float | None = None  # of the last candidate

    def begin_text(
        self, start: Found | None = None, memory: Memory | None = None, *, credit: float = 0.0
    ) -> None:
        super().begin_text(start, memory, credit=credit)
        self._generated = 0
        self._affordable = False
        self._span: tuple[int, list[int]] | None = None

    def observe(self, round: Round) -> None:
        """See ``SkipSetSearch.observe``."""
        self._generated = round.generated
        expected = self._seconds or _FIRST_COST * round.verify_seconds
        earned = self.settings.share * (round.draft_seconds + round.verify_seconds)
        self._credit = min(self._credit + earned, _MOST_SAVED * expected)
        # The set in use is judged again over new text, to compare with at least one other.
        candidates = 2 if self._found is not None and self._level is None else 1
        self._affordable = self._credit >= candidates * expected

    def advance(self, session: TextSession) -> None:
        """Judges one candidate over the last generated tokens, if there are enough of them and the
        share of time allows it. The first time, ranks the candidates instead."""
        window = self.settings.window
        full = self._generated > window + 1 and len(session) > window
        if not full or not self._affordable:
            return
        self._affordable = False
        started = time.perf_counter()
        begin, end = self._window(session)
        if self._orders is None:
            found = ranking.orders(session, begin, end, self.savings())
            if found is not None:
                self.set_orders(found)
        elif (mask := self.propose()) is not None:
            records = replay_records(session, mask, begin, end, stretch=self.settings.stretch)
            if records is not None:
                self.judge(mask, records)
        self._seconds = time.perf_counter() - started
        self._credit -= self._seconds

    def _window(self, session: TextSession) -> tuple[int, int]:
        """The positions to judge candidates over: the same as before as long as they are in the
        text and not far back."""
        window = self.settings.window
        if self._span is not None:
            begin, tokens = self._span
            end = begin + window
            near = len(session) < end + _RENEWAL * window
            if near and session.tokens[begin - 1 : end] == tokens:
                return begin, end
        end = len(session)
        # With the token before the window, which the first position is predicted from.
        self._span = end - window, session.tokens[end - window - 1 : end]
        self.begin_window()
        return end - window, end
