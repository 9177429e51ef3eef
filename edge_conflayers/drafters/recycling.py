"""Recycling: what the full model held likely after the same tokens before (Token Recycling, arXiv
2408.08696).

The library keeps the tables and walks through them (``native/src/sources/recycling.h``); here they
learn from a session, and are saved.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.native_source import NativeSource
from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import ROOT
from edge_conflayers.engine.session import TextSession
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.profiles.saved_state import Positive, SavedState, UnusableState

NAME = "recycling"

WIDTH = binding.RECYCLING_WIDTH
"""Successors that an entry holds."""

_KINDS = binding.RECYCLING_KINDS
_CAPACITY = 20_000  # entries of a table; the least recently updated go first. Not tuned
_NO_TOKEN = -1
_MAX_VERIFIED = 32  # tokens verified together
_ENTRY_BYTES = 8 + WIDTH * (4 + 1)

_TABLES = (binding.RECYCLING_BY_ONE, binding.RECYCLING_BY_TWO)

_Frequencies = Annotated[list[Positive], msgspec.Meta(min_length=_KINDS, max_length=_KINDS)]


class _CameTrue(SavedState):
    """How often successors of each kind came true."""

    hits: _Frequencies
    seen: _Frequencies


class _Table(SavedState):
    """One table.

    Attributes:
        entries: keys, least recently updated first, then tokens, then kinds; little-endian and
            deflated, at most 48 bytes an entry (base64 in JSON).
        came_true: frequencies by kind.
    """

    entries: bytes
    came_true: _CameTrue


class _State(SavedState):
    by_one: _Table
    by_two: _Table


class RecyclingSource(NativeSource):
    """Candidates from the full model's likeliest tokens after the same one or two tokens.

    Args:
        capacity: most entries of a table.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        super().__init__(NAME, binding.ecl_recycling_new(capacity))
        self._capacity = capacity
        self._before = _NO_TOKEN  # the text's last token but one
        self._text = (ctypes.c_int32 * (_MAX_VERIFIED + 2))()
        self._logits = (ctypes.c_void_p * _MAX_VERIFIED)()

    def observe(self, session: TextSession, pending: Sequence[int]) -> None:
        """See ``CandidateSource.observe``."""
        before, last = [_NO_TOKEN, _NO_TOKEN, *session.tokens[-2:], *pending][-2:]
        self._before = before
        binding.ecl_recycling_observe(self.handle, before, last)

    def learn(self, session: TextSession, round: Round) -> None:
        """See ``CandidateSource.learn``."""
        pending, tokens = round.pending, round.draft.tokens
        # What follows a wrong token is seldom asked for, so only the text is learned from.
        nodes = (ROOT, *round.path)[:_MAX_VERIFIED]
        first, n = len(pending), len(nodes)
        for i, node in enumerate(nodes):
            self._logits[i] = session.logits_address(first + node)
        before = pending[-2] if len(pending) > 1 else self._before
        text: list[Any] = [before, pending[-1], *(tokens[node] for node in round.path), round.token]
        self._text[: n + 2] = text[: n + 2]
        n_vocab = session.model.n_vocab
        if binding.ecl_recycling_learn(self.handle, self._text, n, self._logits, n_vocab):
            raise EdgeConflayersError("the step kept no logits to learn from, or memory ran out")

    def state(self) -> dict[str, Any]:
        """The tables, JSON-able; at most 3 MB."""
        return _State(*(self._table_state(table) for table in _TABLES)).to_json()

    def _table_state(self, table: int) -> _Table:
        n = binding.ecl_recycling_size(self.handle, table)
        keys, tokens = np.empty(n, np.int64), np.empty((n, WIDTH), np.int32)
        kinds = np.empty((n, WIDTH), np.uint8)
        hits, seen = np.empty(_KINDS), np.empty(_KINDS)
        arrays = (keys, tokens, kinds, hits, seen)
        binding.ecl_recycling_save(self.handle, table, *(each.ctypes.data for each in arrays))
        parts = (keys.astype("<i8"), tokens.astype("<i4"), kinds)
        packed = zlib.compress(b"".join(part.tobytes() for part in parts))
        return _Table(packed, _CameTrue(hits.tolist(), seen.tolist()))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], n_vocab: int) -> RecyclingSource:
        """Restores what ``state`` returned.

        Raises:
            BadInput: it is not such a state, or not of a model with this vocabulary.
        """
        saved = _State.from_json(state)
        source = cls()
        for table, content in zip(_TABLES, (saved.by_one, saved.by_two), strict=True):
            source._resume(table, content, n_vocab)
        return source

    def _resume(self, table: int, state: _Table, n_vocab: int) -> None:
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(state.entries, _ENTRY_BYTES * self._capacity)
        except zlib.error as error:
            raise UnusableState(f"a table is damaged: {error}") from None
        n, rest = divmod(len(data), _ENTRY_BYTES)
        if rest or not inflate.eof:
            raise UnusableState("a table has another size")
        arrays: tuple[npt.NDArray[Any], ...] = (
            np.frombuffer(data, "<i8", n).astype(np.int64),
            np.frombuffer(data, "<i4", n * WIDTH, 8 * n).astype(np.int32),
            np.frombuffer(data, np.uint8, n * WIDTH, (8 + 4 * WIDTH) * n),
            np.array(state.came_true.hits),
            np.array(state.came_true.seen),
        )
        pointers = (each.ctypes.data for each in arrays)
        if binding.ecl_recycling_load(self.handle, table, n_vocab, n, *pointers):
            raise UnusableState("a table has entries that cannot be")
