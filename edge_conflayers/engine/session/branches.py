"""Steps beside the text, from given hidden states to the states that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.session.arrays import floats, int32_array, state_rows
from edge_conflayers.engine.session.cached_text import OUTPUT_CODES, CachedText
from edge_conflayers.engine.session.mask import NO_MASK, LayerMask
from edge_conflayers.engine.session.results import Outputs


def branches(
    session: CachedText,
    tokens: Sequence[int],
    begin: int,
    *,
    mask: LayerMask = NO_MASK,
    states: npt.NDArray[np.float32] | None = None,
    stream: int | Literal["all"] | None = None,
    outputs: Outputs = "none",
) -> npt.NDArray[np.float32] | None:
    """Runs tokens several times in one step, each time (a branch) from other hidden states. The
    text and its mask stay as they are.

    Args:
        tokens: what every branch runs over; all branches together have at most ``session.batch``.
        begin: position of the first token; branches attend to the text before it.
        mask: the sub-layers that the step leaves out.
        states: float32 [branches, tokens, n_embd], what each branch starts from; None for one
            branch that starts from the tokens' embeddings.
        stream: the layer whose residual stream to return, as it leaves the layer (the last layer's
            only with all outputs); "all" for what enters each layer.
        outputs: the tokens of each branch whose logits are kept, branch after branch.

    Returns:
        The stream, float32 [branches, tokens, n_embd], or [n_layer, branches, tokens, n_embd] for
        "all"; [0] without one; None if the cache has no room for the branches.

    Raises:
        BadInput: the model's architecture cannot be served.
    """
    n, n_layer, n_embd = len(tokens), session.model.n_layer, session.model.n_embd
    n_branches = 1 if states is None else len(states)
    rows = None if states is None else state_rows(states, n_branches * n, n_embd)
    shape: tuple[int, ...] = (n_branches, n, n_embd)
    code = stream if isinstance(stream, int) else binding.STREAM_NONE
    if stream == "all":
        code, shape = binding.STREAM_ALL, (n_layer, *shape)
    found = np.empty(shape if stream is not None else (0,), dtype=np.float32)
    status = binding.ecl_branches(
        session.handle,
        *(mask.packed(n_layer), n_layer, int32_array(tokens)),
        None if rows is None else floats(rows),
        *(n, n_branches, begin, 0, code, OUTPUT_CODES[outputs], floats(found)),
    )
    if status == binding.NO_ROOM:
        return None
    session.context.check(status)
    return found
