"""Lookup: what followed when the text's last tokens occurred before (SuffixDecoding, arXiv
2411.04975).

The library keeps and searches the texts (``native/src/sources/lookup.h``); here it follows a
session.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.native_source import NativeSource
from edge_conflayers.engine import binding
from edge_conflayers.engine.session import TextSession
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.errors import EdgeConflayersError

NAME = "lookup"

_CHECKED = 32  # last known tokens compared to see whether a text goes on from there; not tuned
# Tokens known of all texts after which earlier ones are forgotten; not tuned.
_MAX_TOKENS = 65_536
_NO_MEMORY = "there is no memory for the text to look tokens up in"


class LookupSource(NativeSource):
    """Candidates from earlier places of this text and of those before it.

    It can also watch a text in the library, token by token (``Session.write``); it is told of
    those tokens afterwards.
    """

    self_calibrated = True

    def __init__(self) -> None:
        super().__init__(NAME, binding.ecl_lookup_new(_MAX_TOKENS))
        self._earlier = 0  # known tokens of earlier texts
        self._text: list[int] = []
        self._session: weakref.ref[TextSession] | None = None

    def observe(self, session: TextSession, pending: Sequence[int]) -> None:
        """See ``CandidateSource.observe``."""
        known, length = len(self._text), len(session) + len(pending)
        same = self._session is not None and self._session() is session and known <= length
        checked = max(0, known - _CHECKED)
        if same:
            end = _end(session, pending, checked)
            if end[: known - checked] == self._text[checked:]:
                self.extend(end[known - checked :])
                return
        self._session = weakref.ref(session)
        self.restart(_end(session, pending, 0))

    def restart(self, tokens: Sequence[int]) -> None:
        """Starts another text; the ones before it stay known, unless they are too many."""
        known = self._take_in(binding.ecl_lookup_restart, tokens)
        self._text = list(tokens)
        self._earlier = known - len(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Takes in how the text goes on, and learns how often matches of each length come true."""
        self._take_in(binding.ecl_lookup_extend, tokens)
        self._text += tokens

    def follow(self, token: int) -> float:
        """Takes in one token, which comes right after what was observed or followed last.

        Returns:
            The probability of the likeliest candidate to follow it; 0 if there is none.
        """
        self._text.append(token)
        probability: float = binding.ecl_lookup_follow(self.handle, token)
        if probability < 0:
            raise EdgeConflayersError(_NO_MEMORY)
        return probability

    def followed(self, tokens: Sequence[int]) -> None:
        """Takes note of tokens that the library has already added."""
        self._text += tokens

    def learn(self, session: TextSession, round: Round) -> None:
        """Does nothing: all there is to learn is in the text."""

    @property
    def n_known(self) -> int:
        """Known tokens of all texts."""
        return self._earlier + len(self._text)

    def _take_in(self, take_in: Any, tokens: Sequence[int]) -> int:
        known: int = take_in(self.handle, int32_array(tokens), len(tokens))
        if known < 0:
            raise EdgeConflayersError(_NO_MEMORY)
        return known


def _end(session: TextSession, pending: Sequence[int], begin: int) -> list[int]:
    """The tokens of the text from a position on."""
    held = len(session)
    return [*session.tokens[begin:], *pending[max(0, begin - held) :]]
