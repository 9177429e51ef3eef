"""Saves and restores what a model has read and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session.read_batches import shared_tokens
from edge_conflayers.engine.session.saved_text import SavedText
from edge_conflayers.llama.evaluation import LlamaEvaluation


@dataclass(frozen=True)
class LlamaState:
    """A text in a cache, with llama-cpp-python's names.

    Attributes:
        input_ids: its tokens.
        n_tokens: how many.
        llama_state: its keys and values.
        llama_state_size: bytes of these.
        seed: of the next text.
        scores: empty; llama-cpp-python keeps logits there.
    """

    input_ids: npt.NDArray[np.intc]
    n_tokens: int
    llama_state: bytes
    llama_state_size: int
    seed: int
    whole_batches: int
    scores: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 0), dtype=np.float32)
    )

    def shared(self, prompt: Sequence[int]) -> int:
        """Tokens at the beginning of a prompt that need not be read once this is restored."""
        return shared_tokens(self.input_ids.tolist(), prompt) if self.llama_state else 0


class LlamaStates(LlamaEvaluation):
    """The methods about states.

    A text that goes on from a restored state is what it would be from the state that was saved.
    """

    @property
    def n_tokens(self) -> int:
        """Tokens in the cache. Setting it to fewer forgets those after."""
        return len(self._generator.session())

    @n_tokens.setter
    def n_tokens(self, n: int) -> None:
        self._generator.session().rewind(n)
        self._forget_logits(n)

    def save_state(self) -> LlamaState:
        """What the cache holds."""
        saved = self._generator.session().saved()
        return LlamaState(
            np.array(saved.tokens, np.intc),
            len(saved.tokens),
            saved.data,
            len(saved.data),
            self._seed,
            saved.whole_batches,
        )

    def load_state(self, state: LlamaState) -> None:
        """Puts back what ``save_state`` returned, of this model and with this n_ctx.

        Raises:
            BadInput: a state of another model or context.
        """
        saved = SavedText(tuple(state.input_ids.tolist()), state.whole_batches, state.llama_state)
        self._generator.session().restore(saved)
        self._forget_logits()
        self._seed = state.seed

    def reset(self) -> None:
        """Forgets the text."""
        self._generator.session().clear()
        self._forget_logits()
