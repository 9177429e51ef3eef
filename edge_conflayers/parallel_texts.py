"""Texts written side by side, which takes a fraction of the time of one after the other.

For what a model is to be taught by: they are sampled, and their bits are a batch's, not those of
plain decoding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers import binding, machine
from edge_conflayers.binding import llama
from edge_conflayers.closing import Closing
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.model import Model
from edge_conflayers.session.context import Context
from edge_conflayers.session.next_state import output_state

_LIKELIEST = 40  # tokens that are drawn from
_BATCH = 512

State = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Written:
    """One token of one text.

    Attributes:
        text: number of the text.
        state: float32 [n_embd], that the token was drawn from.
        token: as drawn.
        next_state: the state after reading it.
    """

    text: int
    state: State
    token: int
    next_state: State


@dataclass
class _Text:
    number: int
    tokens: list[int]  # drawn so far; the last is not in the cache
    held: int  # tokens in the cache
    state: State  # that the last token was drawn from


@dataclass(frozen=True)
class FinishedText:
    """A text from its prompt's end on.

    Attributes:
        number: of the text.
        tokens: drawn, without one that ends a text.
    """

    number: int
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
        params.n_seq_max = params.n_outputs_max = most
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = threads or machine.default_threads()
        params.no_perf = True
        self.context = Context(model, params)
        self._batch: Any = llama.llama_batch_init(int(params.n_batch), 0, 1)

    def fits(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt leaves half of the room for its text."""
        return 0 < len(prompt) <= self.room // 2

    def write(
        self, prompts: Iterator[Sequence[int]], max_tokens: int
    ) -> Iterator[Written | FinishedText]:
        """Writes a text for each prompt, as many at once as there is room for.

        Args:
            prompts: asked for one whenever a text has ended; those that do not fit are left out.
            max_tokens: of each text.

        Yields:
            Every token once the model has read it, and every text when it has ended.

        Raises:
            EdgeConflayersError: a step failed.
        """
        texts: dict[int, _Text] = {}  # by sequence
        numbers = iter(range(1 << 62))
        llama.llama_memory_clear(self.context.memory, True)
        while True:
            for sequence in range(self._most):
                if sequence not in texts:
                    begun = self._begin(sequence, prompts, next(numbers))
                    if begun is None:
                        break
                    texts[sequence] = begun
            if not texts:
                return
            yield from self._step(texts, max_tokens)

    def _begin(self, sequence: int, prompts: Iterator[Sequence[int]], number: int) -> _Text | None:
        for prompt in prompts:
            if self.fits(prompt):
                for begin in range(0, len(prompt), _BATCH):
                    part = prompt[begin : begin + _BATCH]
                    places = [(sequence, begin + i, token) for i, token in enumerate(part)]
                    self._decode(places, all_outputs=False)
                return _Text(number, [self._draw(-1)], len(prompt), self._state(-1))
        return None

    def _step(self, texts: dict[int, _Text], max_tokens: int) -> Iterator[Written | FinishedText]:
        for row in _rows(texts):
            self._decode([(s, texts[s].held, texts[s].tokens[-1]) for s in row])
            results = [(s, self._state(i), self._draw(i)) for i, s in enumerate(row)]
            for sequence, state, drawn in results:
                text = texts[sequence]
                yield Written(text.number, text.state, text.tokens[-1], state)
                text.held += 1
                text.state = state
                ended = self.model.ends_text(drawn)
                if not ended:
                    text.tokens.append(drawn)
                if ended or len(text.tokens) >= max_tokens or text.held >= self.room - 1:
                    llama.llama_memory_seq_rm(self.context.memory, sequence, -1, -1)
                    del texts[sequence]
                    yield FinishedText(text.number, text.tokens)

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
        return output_state(self.context, index, self.model.n_embd)

    def _draw(self, index: int) -> int:
        k = min(_LIKELIEST, self.model.n_vocab)
        tokens, probabilities = (ctypes.c_int32 * k)(), (ctypes.c_float * k)()
        n = binding.ecl_top_k(self.context.handle, index, k, tokens, probabilities)
        if n <= 0:
            raise EdgeConflayersError(self.context.last_error())
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
