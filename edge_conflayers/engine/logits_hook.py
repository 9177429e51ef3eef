"""A Python function that sees the logits of each draw, as the first link of a sampler chain."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.native import llama

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class LogitsWatcher(Protocol):
    """Sees the full model's logits of each token of a text, in the text's order."""

    def see(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Sees the logits of the next token.

        Args:
            logits: float32 [n_vocab], before anything has changed them; valid during the call. A
                token that a constraint forbids is drawn again, and its logits are then -inf.

        Returns:
            What to draw by instead; None for the same.
        """
        ...

    def drew(self, token: int) -> None:
        """Hears which token was drawn."""
        ...


class LogitsHook:
    """A watcher as a llama.cpp sampler.

    Nothing can be raised through C: what a watcher raises is kept as the samplers' ``error``, which
    ends the text.

    Attributes:
        samplers: whose ``error`` is set; to be given before the first draw.
        reading: whether tokens are a prompt's, which the watcher does not hear of.
        handle: llama.cpp's own pointer, for a chain, which then owns it.
    """

    samplers: binding.Samplers | None = None
    reading = False

    def __init__(self, watcher: LogitsWatcher) -> None:
        self._watcher = watcher
        # llama.cpp keeps a pointer to these.
        self._interface = llama.llama_sampler_i(
            accept=llama.llama_sampler_i_accept(self._accept),
            apply=llama.llama_sampler_i_apply(self._apply),
        )
        self.handle: Any = llama.llama_sampler_init(ctypes.byref(self._interface), None)

    def _apply(self, _sampler: Any, pointer: Any) -> None:
        try:
            candidates = pointer.contents  # all tokens in order: it is the first link
            size = candidates.size * _CANDIDATE.itemsize
            memory = (ctypes.c_char * size).from_address(ctypes.addressof(candidates.data.contents))
            logits = np.frombuffer(memory, dtype=_CANDIDATE)["logit"]
            changed = self._watcher.see(logits)
            if changed is not None:
                logits[:] = changed
        except BaseException as error:
            self._failed(error)

    def _accept(self, _sampler: Any, token: int) -> None:
        if self.reading:
            return
        try:
            self._watcher.drew(token)
        except BaseException as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if self.samplers is not None and self.samplers.error is None:
            self.samplers.error = error
