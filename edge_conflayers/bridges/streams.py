"""The hidden states of texts that bridges are taught with, and drafted from in replays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import Session
from edge_conflayers.engine.session.branches import branches

Streams = npt.NDArray[np.float16]
"""What enters some layers at each token of a text: float16 [layers, tokens, n_embd]."""


def streams_of(session: Session, tokens: Sequence[int], layers: Sequence[int]) -> Streams | None:
    """Reads a text beside the session's own, which stays.

    Args:
        tokens: from the start of the text; at most ``session.batch``.
        layers: whose inputs to keep, 0-based.

    Returns:
        None if the cache has no room, or a state does not fit in half precision.

    Raises:
        BadInput: the model's architecture cannot be served.
    """
    found = branches(session, tokens, 0, stream="all")
    if found is None:
        return None
    with np.errstate(over="ignore"):
        kept = found[list(layers), 0].astype(np.float16)
    return kept if np.isfinite(kept).all() else None
