"""llama.cpp's context, and the library's status codes as errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from edge_conflayers.engine import binding, native
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.errors import BadInput, EdgeConflayersError

# What to do about a status that is the user's to mend.
_ADVICE = {
    binding.BAD_ARGUMENT: "",
    binding.NO_MASK: "; use --method plain",
    binding.NO_DRAFT_VOCABULARY: "; draft without one",
    binding.NO_NEXT_STATE: "; draft without a next-state head",
    binding.NO_EXITS: "; use another method",
    binding.FORBIDDEN: "; check that it can be completed",
}


class ContextFull(BadInput):
    """No room for the tokens of a step; the cache is as it was before the step."""


class Context:
    """llama.cpp's context of a model, with the adapters and positions of its options.

    Args:
        params: llama.cpp's own structure.

    Raises:
        BadInput: it cannot be made.
    """

    def __init__(self, model: Model, params: Any) -> None:
        self._handle: Any = None
        model.options.set_positions(params)
        native.log.recent.clear()
        self._handle = llama.llama_init_from_model(model.handle, params)
        if not self._handle:
            why = native.log.first_error() or "not enough memory"
            raise BadInput(
                f"a context of {params.n_ctx} tokens cannot be made: {why};"
                " try a smaller one or another kind of cache"
            )
        model.adapters.set_on(self._handle)
        self.memory: Any = llama.llama_get_memory(self._handle)

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer.

        Raises:
            EdgeConflayersError: the context is closed.
        """
        if self._handle is None:
            raise EdgeConflayersError("the session is closed; open a new one")
        return self._handle

    def set_draft_vocabulary(self, tokens: Sequence[int]) -> None:
        """See ``Session.set_draft_vocabulary``."""
        self.check(binding.ecl_set_draft_vocabulary(self.handle, int32_array(tokens), len(tokens)))

    def close(self) -> None:
        """Frees it; may be called again."""
        if self._handle is not None:
            llama.llama_free(self._handle)
            self._handle = None

    def last_error(self) -> str:
        """What the library says of its last failure."""
        return str(binding.ecl_last_error(self.handle).decode("utf-8", errors="replace"))

    def check(self, status: int) -> int:
        """Returns a status that is no failure, a count or 0; raises as ``fail`` does otherwise."""
        if status < 0:
            self.fail(status)
        return status

    def fail(self, status: int) -> NoReturn:
        """Raises what a failed call's status means.

        Raises:
            ContextFull: no room in the KV cache.
            BadInput: the model cannot be served with what was asked for, a grammar allows no
                token, or an argument cannot be.
            EdgeConflayersError: any other failure.
        """
        why = self.last_error() or f"code {status}"
        if status == binding.NO_ROOM:
            raise ContextFull(
                "the KV cache has no room for this step; start with a larger context (-c)"
            )
        if status in _ADVICE:
            raise BadInput(why + _ADVICE[status])
        raise EdgeConflayersError(f"the model could not be run: {why}")
