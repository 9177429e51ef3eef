"""llama.cpp's context, and its status codes as errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import llama
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.errors import BadInput, EdgeConflayersError

NO_ROOM = 1
NO_ROOM_DRAFTING = -101


class ContextFull(BadInput):
    """No room for the tokens of a step; the cache is as it was before the step."""


class Context:
    """llama.cpp's context of a model.

    Args:
        params: llama.cpp's own structure.

    Raises:
        BadInput: it cannot be made.
    """

    def __init__(self, model: Model, params: Any) -> None:
        self._handle: Any = None
        binding.log.recent.clear()
        self._handle = llama.llama_init_from_model(model.handle, params)
        if not self._handle:
            why = binding.log.first_error() or "not enough memory"
            raise BadInput(
                f"a context of {params.n_ctx} tokens cannot be made: {why};"
                " try a smaller one or another kind of cache"
            )
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
        if binding.ecl_set_draft_vocabulary(self.handle, int32_array(tokens), len(tokens)):
            raise BadInput(f"{self.last_error()}; draft without one")

    def close(self) -> None:
        """Frees it; may be called again."""
        if self._handle is not None:
            llama.llama_free(self._handle)
            self._handle = None

    def last_error(self) -> str:
        """What the library says of its last failure."""
        return str(binding.ecl_last_error(self.handle).decode("utf-8", errors="replace"))

    def fail(self, status: int) -> NoReturn:
        """Raises what a status other than 0 means: ContextFull, BadInput for what the model's
        architecture cannot be served with, or EdgeConflayersError."""
        why = self.last_error()
        if status == NO_ROOM:
            raise ContextFull(
                "the KV cache has no room for this step; start with a larger context (-c)"
            )
        if "the grammar allows no token" in why:
            raise BadInput(f"{why}; check that it can be completed")
        if "a draft vocabulary" in why:
            raise BadInput(f"{why}; draft without one")
        if "cannot be served" in why:
            raise BadInput(f"{why}; use --method plain")
        raise EdgeConflayersError(f"the model could not be run: {why or f'code {status}'}")
