"""What every engine's sessions refuse before they begin."""

from __future__ import annotations

from typing import Protocol

from edge_conflayers.engine.session.context import ContextFull
from edge_conflayers.engine.session.results import Outputs
from edge_conflayers.errors import BadInput, EdgeConflayersError


class _Text(Protocol):
    @property
    def n_ctx(self) -> int: ...

    @property
    def room(self) -> int: ...

    @property
    def max_outputs(self) -> int: ...

    def __len__(self) -> int: ...


def check_step(text: _Text, n: int, outputs: Outputs) -> None:
    """Refuses a step over ``n`` tokens that does not fit.

    Raises:
        ContextFull: the cache has no room for the tokens.
        EdgeConflayersError: the step would keep more logits than ``max_outputs``.
    """
    if outputs == "all" and n > text.max_outputs:
        raise EdgeConflayersError(
            f"a step keeps the logits of at most {text.max_outputs} tokens, not {n};"
            " take fewer, or open the session with more max_outputs"
        )
    if n > text.room:
        raise ContextFull(
            f"{n} more tokens do not fit: {len(text)} of {text.n_ctx} are taken;"
            " start with a larger context (-c)"
        )


def check_prompt(text: _Text, n: int) -> None:
    """Refuses a prompt of ``n`` tokens that does not fit.

    Raises:
        ContextFull: the cache has no room for it.
    """
    if n > text.room:
        raise ContextFull(
            f"the prompt has {n} tokens, {text.room} fit;"
            " shorten it or start with a larger context (-c)"
        )


def check_exit(exit_layer: int, n_layer: int) -> None:
    """Refuses an early exit that the model does not have.

    Raises:
        BadInput: no layers would run before it, or none would be left out.
    """
    if not 0 < exit_layer < n_layer:
        raise BadInput(
            f"there is no exit after {exit_layer} of {n_layer} layers;"
            f" choose from 1 to {n_layer - 1}"
        )


def check_positions(begin: int, end: int, length: int) -> None:
    """Refuses to replay positions that are not in a text of so many tokens.

    Raises:
        ValueError: they are not, or nothing stands before the first.
    """
    if not 1 <= begin <= end <= length:
        raise ValueError(f"positions {begin} to {end} are not all in 1 to {length}")
