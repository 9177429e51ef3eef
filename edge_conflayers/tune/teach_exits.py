"""Teaches a model's exits with the texts that it writes to the user's prompts and to its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from edge_conflayers import machine
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.engine import binding
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.next_state_head import lm_head_row, output_state
from edge_conflayers.engine.session.taught_exits import keep_streams, kept_stream
from edge_conflayers.exits.taught_exits import EXIT_VOCABULARY_SIZE, TaughtExits, exit_layers
from edge_conflayers.exits.training import ExitSamples, judge, solve, train
from edge_conflayers.tune.lessons import Lessons
from edge_conflayers.tune.parallel_texts import (
    FinishedText,
    ParallelTexts,
    Request,
    State,
    TrainingToken,
)

_WRITING = 0.6  # share of the time for writing texts, the rest for training; not tuned
_LEAST_TOKENS = 512  # not tuned
_PASSES = 6  # over the tokens, at most; the held-out ones say which was best. Not tuned
_MOST_BYTES = 1 << 29  # of what is learned from; not tuned


@dataclass(frozen=True)
class Progress:
    """How far teaching is: seconds since it began, and what it has brought so far."""

    seconds: float
    label: str


@dataclass(frozen=True)
class TaughtResult:
    """Exits and how good they are.

    Attributes:
        exits: the new ones.
        tokens: tokens that they were taught with.
        foreseen: of each exit, the share of held-out tokens that are its first guess.
        interrupted: whether teaching was cut short.
    """

    exits: TaughtExits
    tokens: int
    foreseen: tuple[float, ...]
    interrupted: bool = False


def teach_exits(
    model: Model,
    prompts: Sequence[Sequence[int]],
    user_texts: Iterable[Sequence[int]] = (),
    *,
    seconds: float,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TaughtResult | None:
    """Generates texts for a time and teaches exits with them. An interrupt ends the texts; those
    generated so far count.

    Args:
        prompts: tokens of each; answered in turn with everyday tasks.
        user_texts: tokens of texts that are read, too.
        seconds: for generating texts and for training.
        threads: CPU threads; None for the machine's physical cores.
        on_progress: called after every token and every pass of training.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by taught exits.
    """
    began = time.monotonic()
    layers = exit_layers(model.n_layer)
    interrupted = False
    with _TextsWithStreams(model, layers, threads=threads) as texts:
        lm_head_row(texts.context, 0, model.n_embd)  # refused here if it cannot be read
        collector = _Collector(texts, Lessons(texts, prompts, user_texts))
        try:
            for each in texts.write(collector.requests()):
                spent = time.monotonic() - began
                collector.take(each)
                on_progress(Progress(spent, f"{len(collector)} tokens"))
                if spent > seconds * _WRITING or collector.full:
                    break
        except KeyboardInterrupt:
            interrupted = True
        if len(collector) < _LEAST_TOKENS:
            if interrupted:
                raise KeyboardInterrupt
            return None
        samples, held_out, written = collector.finish()
        vocabulary = DraftVocabulary(model, size=EXIT_VOCABULARY_SIZE)
        vocabulary.expect(written)
        tokens = vocabulary.tokens(EXIT_VOCABULARY_SIZE)
        rows = np.stack([lm_head_row(texts.context, each, model.n_embd) for each in tokens])
    with threadpool_limits(machine.threads_to_use(threads)):
        maps = solve(samples)
        if not interrupted:
            maps = train(
                *(maps, samples, held_out, rows),
                passes=_PASSES,
                deadline=began + seconds,
                on_pass=lambda done: on_progress(
                    Progress(time.monotonic() - began, f"{len(samples)} tokens, {done} times")
                ),
            )
        entropies, right = judge(maps, held_out, rows, np.array(tokens, dtype=np.int32))
    exits = TaughtExits(layers, maps.norms, maps.weights, written, entropies, right)
    foreseen = tuple(float(share) for share in right.mean(-1))
    return TaughtResult(exits, len(samples), foreseen, interrupted)


class _TextsWithStreams(ParallelTexts):
    """Texts whose states are the last hidden state, the residual streams after the exits' layers,
    and the full model's likeliest next token: float32 [(1 + exits) * n_embd + 1]."""

    def __init__(self, model: Model, layers: Sequence[int], *, threads: int | None) -> None:
        super().__init__(model, threads=threads)
        self._layers = layers
        keep_streams(self.context, True)

    def _state(self, index: int) -> State:
        n_embd = self.model.n_embd
        best = binding.ecl_argmax(self.context.handle, index, None)
        return np.concatenate(
            [
                output_state(self.context, index, n_embd),
                *(kept_stream(self.context, layer, index, n_embd) for layer in self._layers),
                np.array([self.context.check(best)], dtype=np.float32),  # exact below 2**24
            ]
        )


class _Collector:
    """Requests the texts that teach a next-state head, and keeps what the model's layers say at
    their tokens."""

    def __init__(self, texts: _TextsWithStreams, lessons: Lessons) -> None:
        self._lessons = lessons
        self._n_embd = texts.model.n_embd
        self._learned: list[npt.NDArray[np.float16]] = []
        self._tested: list[npt.NDArray[np.float16]] = []
        self._best: dict[bool, list[int]] = {False: [], True: []}  # by whether it is held out
        self._written: Counter[int] = Counter()

    def __len__(self) -> int:
        """Tokens to learn from so far."""
        return len(self._learned)

    @property
    def full(self) -> bool:
        """Whether no more tokens fit in memory."""
        return len(self) > 0 and len(self) * self._learned[0].nbytes >= _MOST_BYTES

    def requests(self) -> Iterator[Request]:
        """See ``Lessons.requests``."""
        return self._lessons.requests()

    def take(self, each: TrainingToken | FinishedText) -> None:
        """Takes in what ``ParallelTexts.write`` yields."""
        if isinstance(each, FinishedText):
            self._lessons.take(each)
            return
        held_out = self._lessons.is_held_out(each.request)
        if held_out and not each.generated:
            return
        states = self._tested if held_out else self._learned
        states.append(each.state[:-1].astype(np.float16))
        self._best[held_out].append(int(each.state[-1]))
        if not held_out:
            self._written[each.token] += 1

    def finish(self) -> tuple[ExitSamples, ExitSamples, Counter[int]]:
        """What to learn from, what to test with, and how often each token was learned from."""
        if not self._tested:  # too few texts for one to be held out
            n = max(1, len(self._learned) // 8)
            self._tested, self._learned = self._learned[-n:], self._learned[:-n]
            self._best = {False: self._best[False][:-n], True: self._best[False][-n:]}
        return (
            _samples(self._learned, self._best[False], self._n_embd),
            _samples(self._tested, self._best[True], self._n_embd),
            self._written,
        )


def _samples(
    states: list[npt.NDArray[np.float16]], best: Sequence[int], n_embd: int
) -> ExitSamples:
    """Takes the states out of the list, row by row."""
    n_exits = len(states[0]) // n_embd - 1
    streams = np.empty((n_exits, len(states), n_embd), dtype=np.float16)
    hidden = np.empty((len(states), n_embd), dtype=np.float16)
    for i in range(len(states) - 1, -1, -1):
        row = states.pop().reshape(1 + n_exits, n_embd)
        hidden[i], streams[:, i] = row[0], row[1:]
    return ExitSamples(streams, hidden, np.array(best, dtype=np.int32))
