"""The sampling arguments of llama-cpp-python's methods as settings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.llama.errors import BadValue

LogitsProcessor = Callable[[npt.NDArray[np.intc], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Returns what to draw by instead of the logits, given the tokens so far."""


def settings(
    *,
    temperature: float,
    top_k: int,
    seed: int,
    last_n: int,
    mirostat_mode: int,
    grammar: Any,
    logit_bias: Mapping[Any, float] | None,
    **others: float,
) -> SamplerSettings:
    """Settings that draw as llama-cpp-python's sampler chain does.

    Args:
        temperature: below 0, tokens are drawn from the model's own distribution.
        top_k: 0 or less for all.
        last_n: recent tokens that penalties look at.
        grammar: GBNF as text, or a ``LlamaGrammar`` of any copy of llama-cpp-python.
        logit_bias: by token, also as text.
        others: with the names of ``SamplerSettings``.

    Raises:
        BadInput: a setting that cannot be.
    """
    filters: dict[str, Any] = {"temperature": temperature, "top_k": max(top_k, 0), **others}
    if temperature < 0.0:
        filters.update(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0)
    elif temperature == 0.0:
        filters.update(typical_p=1.0)
    elif mirostat_mode in (1, 2):  # which llama-cpp-python applies without the temperature
        filters.update(temperature=1.0, mirostat=mirostat_mode)
    return SamplerSettings(
        seed=seed,
        repeat_last_n=last_n,
        penalize_prompt=False,
        grammar=_grammar_text(grammar),
        logit_bias=_biases(logit_bias or {}),
        **filters,
    )


def generation_settings(arguments: Mapping[str, Any], *, seed: int, last_n: int) -> SamplerSettings:
    """The arguments of ``generate`` and ``sample`` as settings.

    Raises:
        BadInput: a setting that cannot be.
    """
    usual = {"temp": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0}
    given = {**usual, "mirostat_mode": 0, "grammar": None, **arguments}
    for name in ("tfs_z", "penalize_nl"):  # without effect in llama-cpp-python, too
        given.pop(name, None)
    return settings(
        temperature=given.pop("temp"), seed=seed, last_n=last_n, logit_bias=None, **given
    )


def _grammar_text(grammar: Any) -> str | None:
    if grammar is None or isinstance(grammar, str):
        return grammar
    text = getattr(grammar, "_grammar", None)
    if not isinstance(text, str):
        raise BadValue(
            f"the grammar is a {type(grammar).__name__}; give a LlamaGrammar, or GBNF as text"
        )
    return text


def _biases(biases: Mapping[Any, float]) -> dict[int, float]:
    try:
        return {int(token): float(bias) for token, bias in biases.items()}
    except (TypeError, ValueError):
        raise BadValue("logit_bias is {token: bias}, both numbers; write it so") from None


class ProcessorWatcher:
    """Lets ``logits_processor`` change the logits before each draw (``LogitsWatcher``)."""

    def __init__(self, processors: Sequence[LogitsProcessor], prompt: Sequence[int]) -> None:
        self._processors = [processors] if callable(processors) else list(processors)
        self._tokens = list(prompt)

    def see(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The logits as the processors return them, one after the other."""
        tokens = np.array(self._tokens, np.intc)
        changed: npt.NDArray[np.float32] = logits.copy()
        for each in self._processors:
            changed = each(tokens, changed)
        return changed

    def drew(self, token: int) -> None:
        """Adds the token to those that the processors are given."""
        self._tokens.append(token)


class LogitsQueue:
    """Keeps the logits of each draw until they are asked for, for ``stopping_criteria``
    (``LogitsWatcher``)."""

    def __init__(self) -> None:
        self._drawn: deque[npt.NDArray[np.float32]] = deque()
        self._seen: npt.NDArray[np.float32] | None = None

    def see(self, logits: npt.NDArray[np.float32]) -> None:
        """Keeps the first that are seen for a token: later ones are under a constraint."""
        if self._seen is None:
            self._seen = logits.copy()

    def drew(self, token: int) -> None:
        """They are that token's."""
        assert self._seen is not None, "a token is drawn from logits"
        self._drawn.append(self._seen)
        self._seen = None

    def next(self) -> npt.NDArray[np.float32]:
        """Those of the text's next token: float32 [n_vocab]."""
        return self._drawn.popleft()
