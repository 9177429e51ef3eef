"""Probe: the confidence of every sub-layer over a window of tokens, as ConfLayers defines it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.engine.session.cached_text import SIDE_SEQUENCE, CachedText


def probe(
    session: CachedText, window: Sequence[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Confidences of every sub-layer's output over a window of tokens (ConfLayers, arXiv
    2604.14612), which is read as a text of its own; the session's text stays as it is.

    Returns:
        One array for attention and one for MLPs, float32 [n_layer], NaN where a layer has none;
        None if the cache has no room for the window.
    """
    n_layer = session.model.n_layer
    attention = (ctypes.c_float * n_layer)()
    mlp = (ctypes.c_float * n_layer)()
    status = binding.ecl_probe(
        session.handle, int32_array(window), len(window), 0, SIDE_SEQUENCE, attention, mlp, n_layer
    )
    llama.llama_memory_seq_rm(session.context.memory, SIDE_SEQUENCE, -1, -1)
    if status == binding.NO_ROOM:
        return None
    session.context.check(status)
    return np.array(attention, dtype=np.float32), np.array(mlp, dtype=np.float32)


def probe_stream(
    session: CachedText, layer: int, where: int, n_tokens: int
) -> npt.NDArray[np.float32]:
    """The residual stream around a layer in the last probe.

    Args:
        where: BEFORE_ATTENTION, AFTER_ATTENTION or AFTER_FFN of ``binding``.
        n_tokens: of the probe's window.

    Returns:
        float32 [tokens, n_embd]; after the last layer's attention only the last token is left.
    """
    size = n_tokens * session.model.n_embd
    stream = (ctypes.c_float * size)()
    rows = session.context.check(
        binding.ecl_probe_stream(session.handle, layer, where, stream, size)
    )
    return np.array(stream, dtype=np.float32).reshape(-1, session.model.n_embd)[:rows]
