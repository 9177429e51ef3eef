"""Teaches a model's next-state head with the model's own answers and the user's texts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from edge_conflayers import machine
from edge_conflayers.bridges.bridge import Bridge
from edge_conflayers.bridges.search import Block
from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.drafters.next_state import NAME
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.next_state_head import (
    lm_head_row,
    next_tokens,
    set_next_state,
    token_embedding,
)
from edge_conflayers.errors import BadInput
from edge_conflayers.next_state import cross_entropy
from edge_conflayers.next_state.head import HEAD_VOCABULARY_SIZE, Floats, NextStateHead
from edge_conflayers.next_state.regression import ridge
from edge_conflayers.tune.bridge_lessons import BridgeLessons
from edge_conflayers.tune.lessons import Lessons
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts

# Texts at once. 16 wrote 11 % fewer tokens, 32 4 % more, but take more memory (0.5B, 2026-11-28).
_PARALLEL = 24
# Share of the time for writing: 23,000 tokens took 140 s, three passes over them 34 s (0.5B).
_WRITING = 0.85
# Seconds after which what was written is learned from, and more is written: a night's texts do not
# fit in memory. Not tuned.
_ROUND = 1800.0
_AGAIN = 0.5  # of the peak rate, for a head that was trained before; not tuned
_LEAST_TOKENS = 1024  # not tuned
_MAX_TESTS = 2048  # tokens that the chances are counted on; not tuned
_GUESSES = 4


@dataclass(frozen=True)
class Progress:
    """How far teaching is.

    Attributes:
        seconds: since it began.
        tokens: written and read so far.
        doing: what it is doing.
        foreseen: share of the tokens of held-out texts that are among the first four guesses, as
            far as that is known.
    """

    seconds: float
    tokens: int
    doing: Literal["writing", "learning"]
    foreseen: float | None = None

    @property
    def label(self) -> str:
        """What it is doing and what that has brought, in a few words."""
        foreseen = "" if self.foreseen is None else f", foresees {self.foreseen:.0%}"
        return f"{self.doing}, {self.tokens} tokens{foreseen}"


@dataclass(frozen=True)
class Taught:
    """A head and how good it is.

    Attributes:
        head: the new head, or the known one if that is better.
        tokens: tokens that the new head was taught with.
        foreseen: share of the tokens of held-out texts that were its first guess, and one of its
            first four.
        interrupted: whether teaching was cut short.
        texts: those that it was taught with, all but the held-out ones.
        bridges: that were taught with the same.
    """

    head: NextStateHead
    tokens: int
    foreseen: tuple[float, float]
    interrupted: bool = False
    texts: Sequence[FinishedText] = ()
    bridges: Sequence[Bridge] = ()


def teach(
    model: Model,
    prompts: Sequence[Sequence[int]] = (),
    *,
    seconds: float,
    user_texts: Iterable[Sequence[int]] = (),
    known: NextStateHead | None = None,
    blocks: Sequence[Block] = (),
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Taught | None:
    """Writes texts and teaches a head with them.

    Args:
        prompts: tokens of the user's, which are answered in turn with everyday tasks.
        seconds: in all. After an interrupt only what was learned so far is tested; if that is
            nothing, what was written is learned from in closed form.
        user_texts: tokens of texts that are read, too.
        known: an earlier head; it is where learning starts if it is better than closed form, and is
            returned if it stays the best.
        blocks: of layers, over which bridges are taught as well as the time allows, if the model
            can be served by them.
        threads: CPU threads; None for the machine's physical cores.
        on_progress: called after every token and every step of learning.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by a next-state head.
    """
    threads = machine.threads_to_use(threads)
    seed = 0 if known is None else known.written.total()  # so that it is not the same texts again
    with (
        ParallelTexts(model, n_parallel=_PARALLEL, threads=threads, seed=seed) as texts,
        threadpool_limits(threads, user_api="blas"),
    ):
        token_embedding(texts.context, 0, model.n_embd)  # refused here if it cannot be read
        lessons = Lessons(texts, prompts, user_texts, seed=seed)
        bridges = _bridge_lessons(texts, blocks)
        teacher = Teacher(texts, lessons, bridges, known, on_progress)
        rounds = max(1, round(seconds / _ROUND))
        interrupted = False
        try:
            for number in range(rounds):
                end = seconds * (number + 1) / rounds
                teacher.write_until(end - (1 - _WRITING) * seconds / rounds)
                teacher.learn(end)
        except KeyboardInterrupt:
            interrupted = True
        taught = teacher.finish()
        found = bridges.finish() if bridges is not None else ()
    if taught is None and interrupted:
        raise KeyboardInterrupt
    if taught is None:
        return None
    return replace(taught, interrupted=interrupted, texts=lessons.texts, bridges=found)


def _bridge_lessons(texts: ParallelTexts, blocks: Sequence[Block]) -> BridgeLessons | None:
    try:
        return BridgeLessons(texts, blocks) if blocks else None
    except BadInput:
        return None  # the model cannot be served by bridges


class Teacher:
    """Learns in rounds from what is written meanwhile.

    Args:
        texts: writes.
        lessons: says what is written.
        bridges: learn from the same; None for none.
        known: an earlier head.
        on_progress: as for ``teach``.

    Attributes:
        known: the head that a new one is compared with.
    """

    def __init__(
        self,
        texts: ParallelTexts,
        lessons: Lessons,
        bridges: BridgeLessons | None,
        known: NextStateHead | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._texts = texts
        self._lessons = lessons
        self._bridges = bridges
        self._written = texts.write(lessons.requests())
        self.known = known
        self._on_progress = on_progress
        self._n_embd = texts.model.n_embd
        self._weights: Floats | None = None  # the best so far
        self._tokens_learned = 0
        self._began = time.monotonic()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def write_until(self, end: float) -> None:
        """Writes until so many seconds after the beginning."""
        self.write(lambda: self._seconds > end)

    def write(self, is_enough: Callable[[], bool]) -> None:
        """Writes until this says that it is enough, after a token or a text, or there is no more to
        write."""
        for each in self._written:
            if self._bridges is not None and not self._lessons.is_held_out(each.request):
                self._bridges.take(each)
            self._lessons.take(each)
            self._on_progress(Progress(self._seconds, self._lessons.tokens, "writing"))
            if is_enough():
                break

    def learn(self, until: float) -> None:
        """Learns from what was written, until so many seconds after the beginning at most."""
        lessons = self._lessons
        lessons.finish()
        if len(lessons.learned) < _LEAST_TOKENS:
            return
        features = lessons.learned.features(self._embedding)
        held_out = lessons.held_out.features(self._embedding)
        rows = self._lm_head_rows()
        closed_form = features.unscaled(ridge(features))
        self._tokens_learned = lessons.learned.written.total()
        if not len(held_out.samples):
            self._weights = closed_form
            return
        known = self.known.weights if self.known is not None else None
        starts = [each for each in (closed_form, known, self._weights) if each is not None]
        start = min(starts, key=lambda each: cross_entropy.foreseen(held_out, rows, each).loss)
        self._weights = start

        def progress(of_training: cross_entropy.Progress) -> None:
            self._on_progress(
                Progress(self._seconds, lessons.tokens, "learning", of_training.foreseen.among)
            )

        try:
            self._weights, _ = cross_entropy.train(
                *(features, held_out, rows, start),
                seconds=max(1.0, until - self._seconds),
                peak_rate=cross_entropy.PEAK_RATE * (1 if start is closed_form else _AGAIN),
                on_progress=progress,
            )
        except cross_entropy.Interrupted as interrupted:
            self._weights = interrupted.weights
            raise

    def finish(self) -> Taught | None:
        """Tests what was learned and the known head, and returns the better; None if there was too
        little text."""
        return max(self.tested(), key=lambda each: each.foreseen[-1], default=None)

    def tested(self) -> list[Taught]:
        """Tests what was learned, and then the known head if there is one; empty if there was too
        little text."""
        self._lessons.finish()
        if self._weights is None:
            if len(self._lessons.learned) < _LEAST_TOKENS:
                return []
            features = self._lessons.learned.features(self._embedding)
            self._weights = features.unscaled(ridge(features))
            self._tokens_learned = len(self._lessons.learned)
        self._texts.context.set_draft_vocabulary(self._draft_vocabulary())
        head = NextStateHead(self._weights, self._all_written)
        return [self._test(each) for each in (head, self.known) if each is not None]

    @property
    def _all_written(self) -> Counter[int]:
        """Counts of the tokens of the texts so far, those of the known head included."""
        known = self.known.written if self.known is not None else Counter[int]()
        return self._lessons.learned.written + known

    def _draft_vocabulary(self) -> list[int]:
        """Of the texts so far."""
        vocabulary = DraftVocabulary(self._texts.model)
        vocabulary.expect(self._all_written)
        return vocabulary.tokens(HEAD_VOCABULARY_SIZE)

    def _lm_head_rows(self) -> Floats:
        """Of the draft vocabulary."""
        context, tokens = self._texts.context, self._draft_vocabulary()
        return np.stack([lm_head_row(context, token, self._n_embd) for token in tokens])

    def _embedding(self, token: int) -> Floats:
        return token_embedding(self._texts.context, token, self._n_embd)

    def _test(self, head: NextStateHead) -> Taught:
        """The head with its chances, as the library asks it, in 8 bits."""
        context = self._texts.context
        set_next_state(context, head.weights)
        hits, n = np.zeros(_GUESSES), 0
        chances = AcceptanceRates()
        for state, token, follower in self._lessons.held_out.followed(_MAX_TESTS):
            guesses, probabilities = next_tokens(context, state, token, _GUESSES)
            found = np.array(guesses) == follower
            hits[: len(found)] += found
            n += 1
            for probability, right in zip(probabilities, found, strict=True):
                chances.observe(NAME, probability, bool(right))
        shares = hits.cumsum() / max(1, n)
        head = replace(head, chances=chances.counts(NAME))
        return Taught(head, self._tokens_learned, (float(shares[0]), float(shares[-1])))
