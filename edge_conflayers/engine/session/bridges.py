"""Bridges over dropped layers in the library: their maps, and the states that drafts start from."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.arrays import floats, int32_array
from edge_conflayers.engine.session.cached_text import SIDE_SEQUENCE, CachedText
from edge_conflayers.engine.session.context import Context
from edge_conflayers.engine.session.mask import LayerMask

Floats = npt.NDArray[np.float32]


class HasContext(Protocol):
    """A model's context, a session's or another."""

    model: Model
    context: Context


def set_bridges(owner: HasContext, bridges: Sequence[tuple[int, int, Floats]]) -> None:
    """Sets a context's bridges; none for none.

    Args:
        bridges: for each, the first layer of its block, the first one after it, and its weights:
            float32 [n_embd, 3 * n_embd + 1], kept in 8 bits. In the order of the layers.

    Raises:
        BadInput: the architecture cannot be served, or there is no memory.
    """
    layers = [layer for begin, end, _ in bridges for layer in (begin, end)]
    weights = [np.ascontiguousarray(each, dtype=np.float32).reshape(-1) for *_, each in bridges]
    owner.context.check(
        binding.ecl_set_bridges(
            owner.context.handle,
            int32_array(layers),
            floats(np.concatenate(weights)) if weights else None,
            len(bridges),
        )
    )


def bridge_states(owner: HasContext, rows: Sequence[int], n_bridges: int) -> Floats | None:
    """What a draft over bridges takes of the tokens before it.

    Args:
        rows: places of tokens in the last step.
        n_bridges: how many bridges are set.

    Returns:
        float32 [rows, n_bridges, 2, n_embd], what entered and left each block; None if the step
        kept none: it was masked, or over more than 32 tokens.
    """
    states = np.empty((len(rows), n_bridges, 2, owner.model.n_embd), dtype=np.float32)
    status = binding.ecl_bridge_states(
        owner.context.handle, int32_array(rows), len(rows), floats(states.reshape(-1))
    )
    if status == binding.NO_OUTPUT:
        return None
    owner.context.check(status)
    return states


def draft_beside(
    session: CachedText,
    mask: LayerMask,
    position: int,
    before: Floats | None,
    *,
    limit: int,
    stop_probability: float,
) -> list[tuple[int, float]] | None:
    """Drafts what follows a place in the session's text, which stays as it is.

    Args:
        mask: the layers that the draft leaves out.
        position: of the text's token that the draft follows, at least 1.
        before: as ``bridge_states``, of the token before that one; None for no bridges.
        limit, stop_probability: as for ``Session.draft``.

    Returns:
        The drafted tokens and their probabilities; None if the cache has no room.
    """
    options = binding.ecl_draft_default_options()
    options.max_draft = limit
    options.stop_probability = stop_probability
    if before is not None:
        before = np.ascontiguousarray(before, dtype=np.float32)  # stays until the call
        options.before = floats(before)
    tokens, probabilities = (ctypes.c_int32 * limit)(), (ctypes.c_float * limit)()
    memory = session.context.memory
    try:
        llama.llama_memory_seq_cp(memory, 0, SIDE_SEQUENCE, 0, position)
        n = binding.ecl_draft(
            session.handle,
            *(mask.packed(session.model.n_layer), session.model.n_layer),
            *(int32_array(session.tokens[position : position + 1]), 1, position, SIDE_SEQUENCE),
            *(ctypes.byref(options), tokens, probabilities),
        )
    finally:
        llama.llama_memory_seq_rm(memory, SIDE_SEQUENCE, -1, -1)
    if n == binding.NO_ROOM:
        return None
    session.context.check(n)
    return list(zip(tokens[:n], probabilities[:n], strict=True))
