"""Reads tokens and draws the next one, a step at a time, without drafts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.sampling import Sampler
from edge_conflayers.llama.errors import BadValue, as_value_errors
from edge_conflayers.llama.sampling import ProcessorWatcher, generation_settings
from edge_conflayers.text_generator import TextGenerator


class LlamaEvaluation:
    """The methods of a loop of one's own: ``eval``, ``sample``, and what the model says.

    Logits are those of ``eval``; what ``create_completion`` and ``generate`` compute is not kept.
    """

    last_n_tokens_size: int
    _logits_all: bool
    _n_ctx: int
    _seed: int

    _evaluated: list[int]  # what eval has read
    _rows: list[npt.NDArray[np.float32]]  # logits after each token of it; or the last one's only
    _live: bool  # whether the session still has the last one's

    @property
    def _generator(self) -> TextGenerator:
        raise NotImplementedError

    def eval(self, tokens: Sequence[int]) -> None:
        """Reads tokens after those in the cache.

        Raises:
            ValueError: they do not fit.
        """
        session = self._generator.session()
        if session.tokens != self._evaluated:
            self._forget_logits()
        size = session.max_outputs if self._logits_all else session.n_ctx
        with as_value_errors():
            for begin in range(0, len(tokens), size):
                part = list(tokens[begin : begin + size])
                if self._logits_all:
                    session.step(part, outputs="all")
                    self._rows += [session.logits(i).copy() for i in range(len(part))]
                else:
                    session.read(part)
                    self._rows = [session.logits().copy()]
        self._evaluated, self._live = list(session.tokens), True

    def sample(self, *, idx: int | None = None, **arguments: Any) -> int:
        """Draws the token that follows what ``eval`` has read.

        Args:
            idx: place in the text of the token that it follows; None for the last one's.
            arguments: the sampling arguments of ``generate``.

        Raises:
            ValueError: nothing was read, or arguments that cannot be used.
        """
        session = self._generator.session()
        self._check_evaluated(self._live)
        processors = arguments.pop("logits_processor", None)
        watchers = [] if processors is None else [ProcessorWatcher(processors, session.tokens)]
        with as_value_errors():
            settings = generation_settings(
                arguments, seed=self._seed % 2**32, last_n=self.last_n_tokens_size
            )
            with closing(Sampler(session.model, settings, watchers)) as sampler:
                return sampler.sample(session, -1 if idx is None else idx - len(session))

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens in the cache."""
        return np.array(self._generator.session().tokens, np.intc)

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens in the cache."""
        return deque(self._generator.session().tokens, maxlen=self._n_ctx)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Logits after each token that ``eval`` has read: float32 [n_tokens, n_vocab].

        Raises:
            ValueError: the model was made without ``logits_all``, or the text has been written
                otherwise meanwhile.
        """
        if not self._logits_all:
            raise BadValue("scores are kept with logits_all=True only; give it")
        self._check_evaluated(len(self._rows) == len(self._evaluated))
        return np.stack(self._rows)

    @property
    def eval_logits(self) -> deque[list[float]]:
        """The same as lists; without ``logits_all``, the last token's only.

        Raises:
            ValueError: as for ``scores``.
        """
        self._check_evaluated(bool(self._rows))
        return deque((row.tolist() for row in self._rows), maxlen=self._n_ctx)

    _input_ids = input_ids
    _scores = scores

    def _check_evaluated(self, there: bool) -> None:
        tokens = self._generator.session().tokens
        if not (there and tokens and tokens == self._evaluated):
            raise BadValue(
                "the logits of the text in the cache are not kept; reset(), and eval() all of it"
            )

    def _forget_logits(self, after: int = 0) -> None:
        """Forgets the logits of what follows so many tokens, or of all.

        To be called when the text in the cache becomes another one.
        """
        self._live = False
        self._evaluated = self._evaluated[:after] if self._logits_all and after else []
        self._rows = self._rows[:after] if self._logits_all and after else []

    @staticmethod
    def logits_to_logprobs(
        logits: npt.NDArray[np.float32] | Sequence[float], axis: int = -1
    ) -> npt.NDArray[np.float32]:
        """Logarithms of the probabilities that logits stand for."""
        values = np.asarray(logits, np.float32)
        most = np.max(values, axis=axis, keepdims=True)
        shifted = values - np.where(np.isfinite(most), most, np.float32(0))
        with np.errstate(divide="ignore"):
            found = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
        return np.asarray(found, np.float32)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """How many tokens both begin with."""
        shared = 0
        for one, other in zip(a, b, strict=False):
            if one != other:
                break
            shared += 1
        return shared
