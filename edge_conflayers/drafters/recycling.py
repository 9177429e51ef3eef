"""Drafts recycled from the full model's own runners-up (Token Recycling, arXiv 2408.08696).

Each step of the full model says, for every token of the text, which tokens were likeliest to come
next. They are kept by that token, and the next draft is a walk through this table. Two additions to
the paper: the table is kept by the last two tokens as well, which are asked first, and how likely a
candidate is comes from how often such candidates came true.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.draft import ROOT, Draft, Round
from edge_conflayers.drafters.calibration import Calibration
from edge_conflayers.drafters.trees import best_first
from edge_conflayers.errors import BadInput
from edge_conflayers.session import Session

NAME = "recycling"

WIDTH = 8
"""Successors kept of each entry."""

_CAPACITY = 20_000  # entries of each table; those of the least recently seen tokens go first
_NO_TOKEN = -1

# Successors are of one kind if they have the same place (first, second, later) and the full model
# gave them a probability between the same two of these numbers when it was seen.
_PROBABILITIES = np.array((0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97))
_PLACES = np.minimum(np.arange(WIDTH), 2) * (len(_PROBABILITIES) + 1)
_KINDS = 3 * (len(_PROBABILITIES) + 1)
# How often successors of each kind came true where this table was asked, over texts of SmolLM2-135M
# and Qwen2.5-Coder-0.5B.
_PRIOR_BY_ONE = (
    *(0.05, 0.05, 0.07, 0.09, 0.13, 0.14, 0.20, 0.20, 0.20, 0.24),
    *(0.05, 0.05, 0.06, 0.08, 0.11, 0.12, 0.12, 0.12, 0.12, 0.12),
    *(0.02, 0.02, 0.03, 0.06, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10),
)
_PRIOR_BY_TWO = (
    *(0.20, 0.20, 0.20, 0.30, 0.43, 0.48, 0.60, 0.64, 0.64, 0.70),
    *(0.03, 0.07, 0.06, 0.09, 0.15, 0.30, 0.30, 0.30, 0.30, 0.30),
    *(0.01, 0.01, 0.03, 0.09, 0.20, 0.20, 0.20, 0.20, 0.20, 0.20),
)
_PRIOR_WEIGHT = 24.0


class SuccessorTable:
    """The likeliest successors of the most recently seen keys.

    Args:
        prior: expected frequency of each kind of successor.
        capacity: most keys.
    """

    def __init__(self, prior: Sequence[float], capacity: int = _CAPACITY) -> None:
        self.capacity = capacity
        self.came_true = Calibration(prior, _PRIOR_WEIGHT)
        self._rows: OrderedDict[int, int] = OrderedDict()  # least recently updated first
        self._tokens = np.zeros((capacity, WIDTH), np.int32)
        self._kinds = np.zeros((capacity, WIDTH), np.uint8)

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, key: int, tokens: Sequence[int], probabilities: Sequence[float]) -> None:
        """Replaces a key's successors.

        Args:
            tokens, probabilities: WIDTH of each, likeliest first.
        """
        row = self._rows.pop(key, None)
        if row is None:
            full = len(self._rows) == self.capacity
            row = self._rows.popitem(last=False)[1] if full else len(self._rows)
        self._rows[key] = row
        self._tokens[row] = tokens
        self._kinds[row] = _PLACES + np.searchsorted(_PROBABILITIES, probabilities, side="right")

    def get(self, key: int) -> list[tuple[int, int]]:
        """A key's successors and the kind of each, likeliest first; none for an unknown key."""
        row = self._rows.get(key)
        if row is None:
            return []
        return list(zip(self._tokens[row].tolist(), self._kinds[row].tolist(), strict=True))

    def state(self) -> str:
        """The entries as text, at most 64 characters each: keys, least recently updated first,
        then tokens, then kinds, little-endian, deflated, base64."""
        rows = list(self._rows.values())
        parts = (
            np.array(list(self._rows), "<i8"),
            self._tokens[rows].astype("<i4"),
            self._kinds[rows],
        )
        return base64.b64encode(zlib.compress(b"".join(p.tobytes() for p in parts))).decode()

    def resume(self, state: str, n_vocab: int) -> None:
        """Takes the entries of a ``state`` in place of its own.

        Raises:
            ValueError: it is not a state, or not of a model with this vocabulary.
        """
        entry = 8 + WIDTH * (4 + 1)
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(base64.b64decode(state), entry * self.capacity)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"a table is damaged: {error}") from None
        n, rest = divmod(len(data), entry)
        if rest or not inflate.eof:
            raise ValueError("a table has another size")
        keys = np.frombuffer(data, "<i8", n).tolist()
        tokens = np.frombuffer(data, "<i4", n * WIDTH, 8 * n).reshape(n, WIDTH)
        kinds = np.frombuffer(data, np.uint8, offset=(8 + 4 * WIDTH) * n).reshape(n, WIDTH)
        rows = OrderedDict((key, row) for row, key in enumerate(keys))
        if len(rows) < n or (kinds >= _KINDS).any() or not _are_tokens(tokens, n_vocab):
            raise ValueError("a table has entries that cannot be")
        self._rows = rows
        self._tokens[:n] = tokens
        self._kinds[:n] = kinds


def _are_tokens(tokens: npt.NDArray[np.int32], n_vocab: int) -> bool:
    """Whether the successors of each key are different tokens of a vocabulary."""
    ordered = np.sort(tokens, axis=1)
    return bool(((ordered >= 0) & (ordered < n_vocab)).all() and (np.diff(ordered) > 0).all())


class RecyclingSource:
    """Candidates from what the full model held likely after the same tokens before."""

    name = NAME

    def __init__(self) -> None:
        self._by_one = SuccessorTable(_PRIOR_BY_ONE)
        self._by_two = SuccessorTable(_PRIOR_BY_TWO)
        self._end = (_NO_TOKEN, _NO_TOKEN)  # the last two tokens of the text

    def observe(self, session: Session, pending: Sequence[int]) -> None:
        last = [_NO_TOKEN, _NO_TOKEN, *session.tokens[-2:], *pending][-2:]
        self._end = last[0], last[1]

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        return best_first(self._end, self._successors, limit, source=NAME, least=least, chain=chain)

    def learn(self, session: Session, round: Round) -> None:
        draft = round.draft
        before = round.pending[-2] if len(round.pending) > 1 else self._end[0]
        ends = {ROOT: (before, round.pending[-1])}  # the last two tokens at each node
        for node, token in enumerate(draft.tokens):
            ends[node] = ends[draft.parent(node)][1], token
        drawn = (*(draft.tokens[node] for node in round.path), round.token)
        for node, token in zip((ROOT, *round.path), drawn, strict=True):
            table, known = self._known(ends[node])
            for successor, kind in known:
                table.came_true.observe(kind, successor == token)
        for node in (ROOT, *round.path):  # what follows a wrong token is seldom asked for
            before, last = ends[node]
            tokens, probabilities = session.top_k(len(round.pending) + node, WIDTH)
            self._by_one.update(last, tokens, probabilities)
            self._by_two.update(_pair(before, last), tokens, probabilities)

    def _tables(self) -> dict[str, SuccessorTable]:
        return {"by_one": self._by_one, "by_two": self._by_two}

    def _known(self, end: tuple[int, int]) -> tuple[SuccessorTable, list[tuple[int, int]]]:
        """The table to ask after two tokens, and what it has."""
        known = self._by_two.get(_pair(*end))
        return (self._by_two, known) if known else (self._by_one, self._by_one.get(end[1]))

    def _successors(
        self, end: tuple[int, int], least: float
    ) -> list[tuple[int, float, tuple[int, int]]]:
        table, known = self._known(end)
        found = [
            (token, table.came_true.probability(kind), (end[1], token)) for token, kind in known
        ]
        found.sort(key=lambda each: -each[1])
        return found

    def state(self) -> dict[str, Any]:
        """The tables, JSON-able; at most 3 MB."""
        return {
            name: {"entries": table.state(), "came_true": table.came_true.state()}
            for name, table in self._tables().items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], n_vocab: int) -> RecyclingSource:
        """A source that goes on from ``state``.

        Raises:
            BadInput: it is not such a state, or not of a model with this vocabulary.
        """
        source = cls()
        try:
            for name, table in source._tables().items():
                table.resume(state[name]["entries"], n_vocab)
                table.came_true.resume(state[name]["came_true"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"what was learned cannot be used ({error}); start anew with --fresh"
            ) from None
        return source


def _pair(before: int, last: int) -> int:
    """One key for two tokens."""
    return (before + 1) << 32 | last
