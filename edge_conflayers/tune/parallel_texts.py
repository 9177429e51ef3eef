"""Texts written side by side, which takes a fraction of the time of one after the other.

For what a model is to be taught by: they are sampled, and their bits are a batch's, not those of
plain decoding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers import machine
from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import llama
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.context import Context
from edge_conflayers.engine.session.next_state_head import drawn_from, keep_inner_state
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.next_state.head import inner_layer

_LIKELIEST = 40  # tokens that are drawn from
_BATCH = 512
_TOLD = 32  # tokens of a prompt whose states are had from one step

State = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Asked:
    """One text to be written.

    Attributes:
        prompt: tokens.
        max_tokens: of the text.
        told_from: the place in the prompt from which on its tokens are told as well.
    """

    prompt: Sequence[int]
    max_tokens: int
    told_from: int = 1 << 30


@dataclass(frozen=True)
class Token:
    """One token of a prompt or its text.

    Attributes:
        asked: whose.
        drawn: whether it is of the text.
        state: float32 [2 * n_embd], hidden and inner state of the place that the token was drawn
            from, as ``drawn_from`` gives them.
        token: as drawn.
        next_state: float32 [n_embd], the hidden state after reading it.
    """

    asked: Asked
    drawn: bool
    state: State
    token: int
    next_state: State


@dataclass
class _Text:
    asked: Asked
    tokens: list[int]  # drawn so far; the last is not in the cache
    held: int  # tokens in the cache
    state: State  # of the place that the last token was drawn from


@dataclass(frozen=True)
class FinishedText:
    """A text from its prompt's end on.

    Attributes:
        asked: what it answers.
        tokens: drawn, without one that ends a text.
    """

    asked: Asked
    tokens: list[int]


class ParallelTexts(Closing):
    """Writes several texts of a model at once.

    Args:
        model: stays open as long as this.
        most: texts at once.
        room: tokens of the longest text, prompt included.
        threads: CPU threads; None for the machine's physical cores.
        temperature, seed: of the sampling, among the 40 likeliest tokens.

    Raises:
        BadInput: no memory for so many.
    """

    def __init__(
        self,
        model: Model,
        *,
        most: int = 16,
        room: int = 512,
        threads: int | None = None,
        temperature: float = 0.8,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.room = room
        self._most = most
        self._temperature = temperature
        self._random = np.random.default_rng(seed)
        params = llama.llama_context_default_params()
        params.n_ctx = most * room
        params.n_batch = params.n_ubatch = min(_BATCH, most * room)
        params.n_seq_max = most
        params.n_outputs_max = max(most, _TOLD)
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = machine.threads_to_use(threads)
        params.no_perf = True
        self.context = Context(model, params)
        keep_inner_state(self.context, inner_layer(model.n_layer))
        self._batch: Any = llama.llama_batch_init(int(params.n_batch), 0, 1)

    def fits(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt leaves half of the room for its text."""
        return 0 < len(prompt) <= self.room // 2

    def write(self, asked: Iterator[Asked]) -> Iterator[Token | FinishedText]:
        """Writes texts, as many at once as there is room for.

        Args:
            asked: for one whenever a text has ended; prompts that do not fit are left out.

        Yields:
            Every token of the texts, and those of prompts that are to be told, once the model has
            read it, and every text when it has ended.

        Raises:
            EdgeConflayersError: a step failed.
        """
        texts: dict[int, _Text] = {}  # by sequence
        llama.llama_memory_clear(self.context.memory, True)
        while True:
            for sequence in range(self._most):
                if sequence not in texts:
                    one = next((each for each in asked if self.fits(each.prompt)), None)
                    if one is None:
                        break
                    yield from self._read(sequence, one)
                    state = self._state(-1)
                    texts[sequence] = _Text(one, [self._draw(-1)], len(one.prompt), state)
            if not texts:
                return
            yield from self._step(texts)

    def _read(self, sequence: int, asked: Asked) -> Iterator[Token]:
        """Reads a prompt; its last token's outputs are there afterwards."""
        prompt = asked.prompt
        # At least the last token's states are needed, which a step over many does not keep.
        told_from = min(asked.told_from, len(prompt) - 1)
        quickly = range(0, told_from, _BATCH)
        cuts = [*quickly, *range(told_from, len(prompt), _TOLD), len(prompt)]
        before: State | None = None
        for begin, end in pairwise(cuts):
            told = begin >= told_from
            places = [(sequence, i, prompt[i]) for i in range(begin, end)]
            self._decode(places, all_outputs=told)
            for i in range(begin, end if told else begin):
                state = self._state(i - begin)
                if before is not None:
                    yield Token(asked, False, before, prompt[i], self._hidden(state))
                before = state

    def _step(self, texts: dict[int, _Text]) -> Iterator[Token | FinishedText]:
        for row in _rows(texts):
            self._decode([(s, texts[s].held, texts[s].tokens[-1]) for s in row])
            results = [(s, self._state(i), self._draw(i)) for i, s in enumerate(row)]
            for sequence, state, drawn in results:
                text = texts[sequence]
                yield Token(text.asked, True, text.state, text.tokens[-1], self._hidden(state))
                text.held += 1
                text.state = state
                ended = self.model.ends_text(drawn)
                if not ended:
                    text.tokens.append(drawn)
                long = len(text.tokens) >= text.asked.max_tokens or text.held >= self.room - 1
                if ended or long:
                    llama.llama_memory_seq_rm(self.context.memory, sequence, -1, -1)
                    del texts[sequence]
                    yield FinishedText(text.asked, text.tokens)

    def _decode(self, places: Sequence[tuple[int, int, int]], *, all_outputs: bool = True) -> None:
        """A step over tokens, each at a position of a sequence."""
        batch = self._batch
        batch.n_tokens = len(places)
        for i, (sequence, position, token) in enumerate(places):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = all_outputs or i == len(places) - 1
        status = llama.llama_decode(self.context.handle, batch)
        if status != 0:
            raise EdgeConflayersError(f"texts could not be written side by side (code {status})")

    def _state(self, index: int) -> State:
        return drawn_from(self.context, index, self.model.n_embd)

    def _hidden(self, state: State) -> State:
        return state[: self.model.n_embd]

    def _draw(self, index: int) -> int:
        k = min(_LIKELIEST, self.model.n_vocab)
        tokens, probabilities = (ctypes.c_int32 * k)(), (ctypes.c_float * k)()
        n = binding.ecl_top_k(self.context.handle, index, k, tokens, probabilities)
        if self.context.check(n) == 0:
            raise EdgeConflayersError("the model could not be run: no logit is a number")
        weights = np.array(probabilities[:n]) ** (1 / self._temperature)
        return int(tokens[self._random.choice(n, p=weights / weights.sum())])

    def close(self) -> None:
        """Frees the cache."""
        if self._batch is not None:
            llama.llama_batch_free(self._batch)
            self._batch = None
        self.context.close()


def _rows(sequences: Iterable[int]) -> list[list[int]]:
    """Runs of consecutive numbers: a step over sequences with a gap would become several, of which
    only the last one's states can be read."""
    rows: list[list[int]] = []
    for sequence in sorted(sequences):
        if rows and rows[-1][-1] == sequence - 1:
            rows[-1].append(sequence)
        else:
            rows.append([sequence])
    return rows
