"""Generates several texts of a model in one batch, in a fraction of the time of one by one.

Their tokens teach the next-state head: they are sampled, and their bits are a batch's, not those of
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
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.bridges import bridge_states, set_bridges
from edge_conflayers.engine.session.context import Context
from edge_conflayers.engine.session.next_state_head import drawn_from, keep_inner_state
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.next_state.head import inner_layer

_TOP_K = 40  # tokens that are sampled from, as llama.cpp's default
_BATCH = 512  # tokens of one step over a prompt, as llama.cpp's default
_STATES_BATCH = 32  # tokens of one step that keeps their states; not tuned

State = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Request:
    """One text to generate.

    Attributes:
        prompt: tokens.
        max_tokens: most tokens to generate; 0 to read the prompt only.
        train_from: index of the first prompt token that is also used for training.
    """

    prompt: Sequence[int]
    max_tokens: int
    train_from: int = 1 << 30


@dataclass(frozen=True)
class TrainingToken:
    """One token of a prompt or its text, and the states before and after it.

    Attributes:
        request: whose token it is.
        generated: whether it belongs to the text and not to the prompt.
        state: float32 [2 * n_embd], hidden and inner state at the position before it, as
            ``drawn_from`` returns them.
        token: the token.
        next_state: float32 [2 * n_embd], hidden and inner state after reading it.
        around: float32 [2, n_embd], what entered and left the block of ``keep_around`` at it; None
            without one.
    """

    request: Request
    generated: bool
    state: State
    token: int
    next_state: State
    around: State | None


@dataclass
class _Text:
    request: Request
    tokens: list[int]  # generated so far; the last is not in the cache
    n_cached: int  # prompt tokens included
    state: State  # at the position that the last token was drawn from


@dataclass(frozen=True)
class FinishedText:
    """A text that has ended.

    Attributes:
        request: what it answers.
        tokens: the text, without an end-of-text token.
    """

    request: Request
    tokens: list[int]


class ParallelTexts(Closing):
    """Generates several texts of a model at once.

    Args:
        model: stays open as long as this.
        n_parallel: texts at once. More share each read of the weights; not tuned.
        n_ctx: tokens of the longest text, prompt included.
        threads: CPU threads; None for the machine's physical cores.
        temperature, seed: of the sampling, among the 40 likeliest tokens.

    Raises:
        BadInput: no memory for so many.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_parallel: int = 16,
        n_ctx: int = 512,
        threads: int | None = None,
        temperature: float = 0.8,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.n_ctx = n_ctx
        self._n_parallel = n_parallel
        self._temperature = temperature
        self._random = np.random.default_rng(seed)
        params = llama.llama_context_default_params()
        params.n_ctx = n_parallel * n_ctx
        params.n_batch = params.n_ubatch = min(_BATCH, n_parallel * n_ctx)
        params.n_seq_max = n_parallel
        params.n_outputs_max = max(n_parallel, _STATES_BATCH)
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = machine.threads_to_use(threads)
        params.no_perf = True
        self.context = Context(model, params)
        keep_inner_state(self.context, inner_layer(model.n_layer))
        self._keeps_around = False
        self._batch: Any = llama.llama_batch_init(int(params.n_batch), 0, 1)

    def keep_around(self, block: tuple[int, int]) -> None:
        """Keeps what enters and leaves a block of layers from now on, for ``TrainingToken.around``.

        Args:
            block: its first layer, and the first one after it.

        Raises:
            BadInput: the model cannot be served by bridges.
        """
        n_embd = self.model.n_embd
        no_map = np.zeros((n_embd, 3 * n_embd + 1), dtype=np.float32)
        set_bridges(self, [(*block, no_map)])
        self._keeps_around = True

    def fits(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt leaves half of the context for its text."""
        return 0 < len(prompt) <= self.n_ctx // 2

    def write(self, requests: Iterator[Request]) -> Iterator[TrainingToken | FinishedText]:
        """Generates texts, ``n_parallel`` at once.

        Args:
            requests: the next one is taken whenever a text has ended; those whose prompt does not
                fit are left out.

        Yields:
            Every token of the texts, and of the prompts from ``train_from`` on, once the model has
            read it, and every text when it has ended.

        Raises:
            EdgeConflayersError: a step failed.
        """
        texts: dict[int, _Text] = {}  # by sequence
        llama.llama_memory_clear(self.context.memory, True)
        while True:
            for sequence in range(self._n_parallel):
                while sequence not in texts:
                    one = next((each for each in requests if self.fits(each.prompt)), None)
                    if one is None:
                        break
                    yield from self._read(sequence, one)
                    if one.max_tokens > 0:
                        state = self._state(-1)
                        texts[sequence] = _Text(one, [self._draw(-1)], len(one.prompt), state)
                    else:
                        llama.llama_memory_seq_rm(self.context.memory, sequence, -1, -1)
                        yield FinishedText(one, [])
            if not texts:
                return
            yield from self._step(texts)

    def _read(self, sequence: int, request: Request) -> Iterator[TrainingToken]:
        """Reads a prompt; the outputs of its last token are kept."""
        prompt = request.prompt
        # The last token's states are needed in any case, and a step over many keeps none.
        train_from = min(request.train_from, len(prompt) - 1)
        skipped = range(0, train_from, _BATCH)
        cuts = [*skipped, *range(train_from, len(prompt), _STATES_BATCH), len(prompt)]
        before: State | None = None
        for begin, end in pairwise(cuts):
            trained = begin >= train_from
            places = [(sequence, i, prompt[i]) for i in range(begin, end)]
            self._decode(places, all_outputs=trained)
            for i in range(begin, end if trained else begin):
                state = self._state(i - begin)
                if before is not None:
                    around = self._around(i - begin)
                    yield TrainingToken(request, False, before, prompt[i], state, around)
                before = state

    def _step(self, texts: dict[int, _Text]) -> Iterator[TrainingToken | FinishedText]:
        for run in _runs(texts):
            self._decode([(s, texts[s].n_cached, texts[s].tokens[-1]) for s in run])
            results = [
                (s, self._state(i), self._around(i), self._draw(i)) for i, s in enumerate(run)
            ]
            for sequence, state, around, drawn in results:
                text = texts[sequence]
                yield TrainingToken(text.request, True, text.state, text.tokens[-1], state, around)
                text.n_cached += 1
                text.state = state
                ended = self.model.ends_text(drawn)
                if not ended:
                    text.tokens.append(drawn)
                long = (
                    len(text.tokens) >= text.request.max_tokens or text.n_cached >= self.n_ctx - 1
                )
                if ended or long:
                    llama.llama_memory_seq_rm(self.context.memory, sequence, -1, -1)
                    del texts[sequence]
                    yield FinishedText(text.request, text.tokens)

    def _decode(self, places: Sequence[tuple[int, int, int]], *, all_outputs: bool = True) -> None:
        """Runs one step.

        Args:
            places: sequence, position and token of each of the step's tokens.
        """
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
            raise EdgeConflayersError(
                f"texts could not be generated in a batch (llama_decode returned {status})"
            )

    def _state(self, index: int) -> State:
        return drawn_from(self.context, index, self.model.n_embd)

    def _around(self, place: int) -> State | None:
        if not self._keeps_around:
            return None
        states = bridge_states(self, [place], 1)
        return None if states is None else states[0, 0]

    def _draw(self, index: int) -> int:
        k = min(_TOP_K, self.model.n_vocab)
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


def _runs(sequences: Iterable[int]) -> list[list[int]]:
    """Runs of consecutive sequences: llama.cpp splits a step over sequences with a gap into several
    steps, and only the last one's states can be read."""
    runs: list[list[int]] = []
    for sequence in sorted(sequences):
        if runs and runs[-1][-1] == sequence - 1:
            runs[-1].append(sequence)
        else:
            runs.append([sequence])
    return runs
