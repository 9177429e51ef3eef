"""Taught exits in the library: setting them, drafts by them, and the states that teach them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft, ExitStates
from edge_conflayers.engine.session.arrays import floats, int32_array
from edge_conflayers.engine.session.context import Context
from edge_conflayers.engine.session.session import Session


def set_taught_exits(
    session: Session,
    layers: Sequence[int],
    norms: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
) -> None:
    """Sets a session's taught exits, in place of those that it has.

    Args:
        layers: layers that run before each exit, ascending; none for no exits.
        norms: float32 [exits, n_embd], factors of the residual stream's features, after it was
            divided by its root mean square.
        weights: float32 [exits, n_embd, n_embd], from those features to the last hidden state.

    Raises:
        BadInput: there are no such exits, or the model cannot be served by them.
        EdgeConflayersError: there is no memory for them.
    """
    n_embd = session.model.n_embd
    if norms.shape != (len(layers), n_embd) or weights.shape != (len(layers), n_embd, n_embd):
        raise ValueError(f"exits of shapes {norms.shape} and {weights.shape}")
    session.context.check(
        binding.ecl_set_taught_exits(
            session.handle,
            *(int32_array(layers), len(layers)),
            floats(np.ascontiguousarray(norms, dtype=np.float32)),
            floats(np.ascontiguousarray(weights, dtype=np.float32)),
        )
    )


def draft_by_exits(
    session: Session, pending: Sequence[int], *, thresholds: Sequence[float], limit: int
) -> Draft:
    """Drafts each token by the first taught exit that is sure of it; a token that none is sure of
    ends the draft. If the draft is verified next, verification goes on where it stopped.

    Args:
        session: has taught exits and a draft vocabulary. Its text and cache stay as they are.
        pending: the end of the text, which is not in the cache yet.
        thresholds: the entropy, in nats, up to which each exit is sure; below 0 it is not asked.
        limit: most tokens to draft.

    Returns:
        The draft; each token's source is "exit " and the exit's layer.

    Raises:
        BadInput: the session has no exits or no draft vocabulary, or its LM head is not in memory
            that the CPU computes in.
    """
    limit = min(limit, session.room - len(pending))
    if limit <= 0:
        return Draft()
    n_embd = session.model.n_embd
    tokens, layers = (ctypes.c_int32 * limit)(), (ctypes.c_int32 * limit)()
    probabilities = (ctypes.c_float * limit)()
    states = np.empty((len(pending) + limit, n_embd), dtype=np.float32)
    reached = ctypes.c_int32()
    n = binding.ecl_draft_taught(
        session.handle,
        *((ctypes.c_float * len(thresholds))(*thresholds), len(thresholds)),
        *(int32_array(pending), len(pending), len(session.tokens), 0, limit),
        *(tokens, probabilities, layers, floats(states), ctypes.byref(reached)),
    )
    if n == binding.NO_ROOM:
        return Draft()
    session.context.check(n)
    if reached.value > 0:
        session.last_exit = ExitStates(reached.value, states[: len(pending) + n])
    else:
        session.last_exit = None
    sources = tuple(exit_name(layer) for layer in layers[:n])
    return Draft(
        tuple(tokens[:n]), tuple(probabilities[:n]), sources=sources, exit=session.last_exit
    )


def exit_name(layer: int) -> str:
    """How an exit's tokens are told from others'."""
    return f"exit {layer}"


def keep_streams(context: Context, keep: bool) -> None:
    """Steps from now on keep what enters each layer, for ``kept_stream``, or no longer. They keep
    no inner state meanwhile.

    Raises:
        BadInput: the architecture does not show it.
    """
    context.check(binding.ecl_keep_streams(context.handle, keep))


def kept_stream(context: Context, layer: int, index: int, n_embd: int) -> npt.NDArray[np.float32]:
    """What entered a layer at the token of one kept output of the last step, divided by its root
    mean square: float32 [n_embd].

    Raises:
        EdgeConflayersError: the last step kept no logits for that output, or no streams.
    """
    state = np.empty(n_embd, dtype=np.float32)
    context.check(binding.ecl_kept_stream(context.handle, layer, index, floats(state)))
    return state
