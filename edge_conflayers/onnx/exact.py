"""How many tokens a step of ONNX Runtime may verify so that the text stays that of plain decoding.

On x86, attention computes a single row by a kernel of its own (MLAS's product of one row with
values), and its last bits differ from those of two rows and more, which agree. So plain steps are
made alike in one of two ways: attention sees the token twice (``graph.ort``), or else the step is
padded to two tokens. Either holds for every plain step of a model, whoever drafts or not, so that
all methods write the same text.

It is tried once for a model, version, provider and number of threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from edge_conflayers.engine.session import exact_batch
from edge_conflayers.engine.session.exact_batch import Setting
from edge_conflayers.onnx.folder import GRAPH, WEIGHTS
from edge_conflayers.onnx.model import OnnxModel
from edge_conflayers.onnx.steps import Logits, Steps


class Plain(IntEnum):
    """How a step over one token is made."""

    AS_IT_IS = 0
    DOUBLED = 1
    """Attention sees the token twice."""
    PADDED = 2
    """All of the model does."""


ROOM = 1
"""Positions that a plain step takes behind its token."""

MOST_COST = 1.5
"""A plain step's time over that of the step as it is from which on drafts are done without. On
SmolLM2 a doubled step takes 1.02 to 1.06 times the time, a padded one 1.15 (CPU time, 2026-11-28),
and drafts of lookups alone bring 1.16 tokens a step in prose. Products at accuracy level 0 take 4.
"""

_SIZES = (2, 3, 4, 8, 16)
"""Sizes of steps that are tried; none larger is ever verified. MLAS's kernels take up to 12 rows of
a matrix at once."""

_PLACES = (5, 250)
"""Positions that are tried from: one near the start, one from which steps reach over 256, where
MLAS divides its sums."""

_COMPARED = 4  # first tokens of a step, besides the last; not tuned
_TRIES = 3  # not tuned
_TIMED = 7  # steps of each kind, of which the fastest counts; not tuned
_FACTOR = 100  # more than any size


@dataclass(frozen=True)
class Exactness:
    """What was found.

    Attributes:
        most: most tokens that a step may verify; 1 for none but the pending one.
        plain: how steps over one token are made.
    """

    most: int
    plain: Plain = Plain.AS_IT_IS

    @property
    def number(self) -> int:
        """As it is remembered."""
        return self.most + _FACTOR * self.plain

    @classmethod
    def of_number(cls, number: int) -> Exactness:
        """What ``number`` was of; nothing exact if it was of nothing."""
        plain, most = divmod(number, _FACTOR)
        known = plain in list(Plain) and 1 <= most <= _SIZES[-1]
        return cls(most, Plain(plain)) if known else cls(1)


WHY_PLAIN = (
    "ONNX Runtime rounds steps over several tokens otherwise than steps over one here, or makes"
    " them alike only at the cost of half a step, so that drafts could change the text or would not"
    " pay: decoding plainly"
)


def exactness(model: OnnxModel, threads: int) -> Exactness:
    """What is remembered, or else what is tried now, in a cache of its own.

    Raises:
        EdgeConflayersError: a step failed.
    """
    setting = _setting(model, threads)
    known = exact_batch.remembered.get(setting)
    if known is None:
        known = exact_batch.remembered[setting] = _tried(model, threads).number
    return Exactness.of_number(known)


def _tried(model: OnnxModel, threads: int) -> Exactness:
    room = _SIZES[-1] + ROOM
    places = [place for place in _PLACES if place + room <= model.n_ctx_train]
    if not places:
        return Exactness(1)  # a model for texts so short needs no drafts
    trial = _Trial(model, threads, places[-1] + room)
    for plain in Plain:
        if plain == Plain.DOUBLED and not trial.can_double:
            continue
        most = min(trial.largest(place, plain) for place in places)
        # Timed again where it seems dear: the answer is kept, and a busy machine can be 1.4 off.
        if most > 1 and any(trial.cost(plain, places[-1]) <= MOST_COST for _ in range(_TRIES)):
            return Exactness(most, plain)
    return Exactness(1)


class _Trial:
    """Steps over a text of no meaning, on keys and values of none."""

    def __init__(self, model: OnnxModel, threads: int, n_ctx: int) -> None:
        self._steps = Steps(model, n_ctx=n_ctx, threads=threads, most_kept=_SIZES[-1])
        self._tokens = model.repeated("The lighthouse keeper counted 47 ships.", _SIZES[-1])
        self.can_double = self._steps.can_double

    def largest(self, place: int, plain: Plain) -> int:
        """The largest step whose tokens all have the bits of plain steps; 1 if none.

        Args:
            place: position of the first token.
        """
        self._steps.cache.fill(place)
        rows = [
            run_plain(self._steps, plain, token, place + i).copy()
            for i, token in enumerate(self._tokens[:_COMPARED])
        ]
        first = np.stack(rows)
        largest = 1
        for size in _SIZES:
            found = self._steps.run(self._tokens[:size], place, size).copy()
            n = min(size, _COMPARED)
            # The last token's on the keys and values of the others.
            last = run_plain(self._steps, plain, self._tokens[size - 1], place + size - 1)
            if not _same(found[:n], first[:n]) or not _same(found[-1], last):
                break
            largest = size
        return largest

    def cost(self, plain: Plain, place: int) -> float:
        """A plain step's time over that of the step as it is."""
        if plain == Plain.AS_IT_IS:
            return 1.0
        seconds: dict[Plain, list[float]] = {Plain.AS_IT_IS: [], plain: []}
        for _ in range(_TIMED):
            for each, taken in seconds.items():
                began = time.perf_counter()
                run_plain(self._steps, each, self._tokens[0], place)
                taken.append(time.perf_counter() - began)
        return min(seconds[plain]) / min(seconds[Plain.AS_IT_IS])


def run_plain(steps: Steps, plain: Plain, token: int, begin: int) -> Logits:
    """Runs over one token: its logits, float32 [n_vocab], valid until the next run."""
    if plain == Plain.PADDED:
        logits = steps.run([token, token], begin, 2)
    else:
        logits = steps.run([token], begin, 1, double=plain == Plain.DOUBLED)
    row: Logits = logits[0]
    return row


def _same(one: Logits, other: Logits) -> bool:
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


def _setting(model: OnnxModel, threads: int) -> Setting:
    files = [(model.path / name).stat() for name in (GRAPH, WEIGHTS)]
    return Setting(
        model=str(Path(model.path).resolve()),
        size=sum(file.st_size for file in files),
        modified_ns=max(file.st_mtime_ns for file in files),
        kernels=model.arithmetic,
        gpu_layers=0,
        flash_attention=None,
        kv_type=model.cache_type,
        threads=threads,
    )
