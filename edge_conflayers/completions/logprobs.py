"""Probabilities of a text's tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_conflayers.completions.request import TokenLogprobs
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.errors import BadInput

MOST = 1000  # likeliest tokens at a place; not tuned


class LogprobsWatcher:
    """Notes how likely each token of a text was (``LogitsWatcher``).

    Args:
        top: how many of the likeliest tokens to tell at each place.

    Raises:
        BadInput: fewer than none, or too many.
    """

    def __init__(self, top: int) -> None:
        if not 0 <= top <= MOST:
            raise BadInput(f"logprobs is {top}; give 0 to {MOST}")
        self._top = top
        self._logits: npt.NDArray[np.float32] | None = None
        self._noted: deque[TokenLogprobs] = deque()

    def see(self, logits: npt.NDArray[np.float32]) -> None:
        """Keeps the first that are seen for a token: later ones are under a constraint."""
        if self._logits is None:
            self._logits = logits.copy()

    def drew(self, token: int) -> None:
        """Notes the token's."""
        assert self._logits is not None, "a token is drawn from logits"
        self._noted.append(token_logprobs(self._logits, token, self._top))
        self._logits = None

    def next(self) -> TokenLogprobs:
        """Those of the text's next token: each is told once."""
        return self._noted.popleft()


def token_logprobs(logits: npt.NDArray[np.float32], token: int, top: int) -> TokenLogprobs:
    """How likely a token was.

    Args:
        logits: float32 [n_vocab].
    """
    most = logits.max()
    log_sum = float(most) + float(np.log(np.exp(logits - most, dtype=np.float64).sum()))
    top = min(top, len(logits))
    best = np.argpartition(-logits, top - 1)[:top] if top else np.empty(0, dtype=np.intp)
    best = best[np.lexsort((best, -logits[best]))]
    return TokenLogprobs(
        token,
        float(logits[token]) - log_sum,
        tuple((int(each), float(logits[each]) - log_sum) for each in best),
    )


def prompt_logprobs(
    model: LanguageModel, prompt: Sequence[int], top: int, threads: int
) -> list[TokenLogprobs]:
    """How likely each token of a prompt is after those before it; its first token is left out.

    Raises:
        BadInput: no memory for a context of its own.
    """
    noted: list[TokenLogprobs] = []
    with model.open_session(n_ctx=len(prompt), threads=threads) as session:
        for begin in range(0, len(prompt), session.max_outputs):
            part = prompt[begin : begin + session.max_outputs]
            session.step(part, outputs="all")
            following = prompt[begin + 1 : begin + 1 + len(part)]
            noted += [token_logprobs(session.logits(i), t, top) for i, t in enumerate(following)]
    return noted
