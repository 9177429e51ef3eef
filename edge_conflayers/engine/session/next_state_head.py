"""The next-state head in the library: the hidden states it takes, and the tokens it predicts."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.session.arrays import floats
from edge_conflayers.engine.session.context import Context


def set_next_state(context: Context, weights: npt.NDArray[np.float32] | None) -> None:
    """Sets a context's next-state head, or removes it.

    Args:
        weights: float32 [2 * n_embd, 3 * n_embd], a linear map from the states of ``drawn_from``
            and a token's embedding, one after the other, to the next states; None for no head.

    Raises:
        BadInput: the architecture cannot be served by one, or there is no memory.
    """
    rows = None if weights is None else floats(np.ascontiguousarray(weights, dtype=np.float32))
    size = 0 if weights is None else weights.size
    context.check(binding.ecl_set_next_state(context.handle, rows, size))


def output_state(context: Context, index: int, n_embd: int) -> npt.NDArray[np.float32]:
    """The hidden state of one kept output of the last step, as the LM head takes it: float32
    [n_embd].

    Raises:
        BadInput: the architecture has no such state.
        EdgeConflayersError: the last step kept no logits for that output, or its state is gone.
    """
    state = np.empty(n_embd, dtype=np.float32)
    context.check(binding.ecl_output_state(context.handle, index, floats(state)))
    return state


def keep_inner_state(context: Context, layer: int | None) -> None:
    """Steps from now on keep what enters a layer, for ``drawn_from``; None: they do not. Steps over
    more than 32 tokens never do."""
    context.check(binding.ecl_keep_inner_state(context.handle, -1 if layer is None else layer))


def drawn_from(context: Context, index: int, n_embd: int) -> npt.NDArray[np.float32]:
    """The states that a next-state head takes for a token drawn by one kept output: the hidden
    state of ``output_state``, then what entered the layer that ``keep_inner_state`` named, divided
    by its root mean square: float32 [2 * n_embd].

    Raises:
        BadInput: the architecture has no such states.
        EdgeConflayersError: the last step kept no logits for that output, or no inner state.
    """
    states = np.empty((2, n_embd), dtype=np.float32)
    context.check(binding.ecl_output_state(context.handle, index, floats(states[0])))
    context.check(binding.ecl_inner_state(context.handle, index, floats(states[1])))
    return states.reshape(-1)


def token_embedding(context: Context, token: int, n_embd: int) -> npt.NDArray[np.float32]:
    """A token's row of the embedding table: float32 [n_embd].

    Raises:
        BadInput: the architecture has no such table, or the vocabulary no such token.
    """
    embedding = np.empty(n_embd, dtype=np.float32)
    context.check(binding.ecl_token_embedding(context.handle, token, floats(embedding)))
    return embedding


def lm_head_row(context: Context, token: int, n_embd: int) -> npt.NDArray[np.float32]:
    """A token's row of the LM head: float32 [n_embd].

    Raises:
        BadInput: the rows cannot be read, or the vocabulary has no such token.
    """
    row = np.empty(n_embd, dtype=np.float32)
    context.check(binding.ecl_lm_head_row(context.handle, token, floats(row)))
    return row


def next_tokens(
    context: Context, state: npt.NDArray[np.float32], token: int, k: int
) -> tuple[list[int], list[float]]:
    """The ``k`` tokens of the draft vocabulary that are likeliest to follow a token, by the
    next-state head, likeliest first, and their probabilities.

    Args:
        state: as ``drawn_from`` gives it.

    Raises:
        BadInput: there is no head or no draft vocabulary, or the LM head is not in memory that the
            CPU computes in.
    """
    tokens, probabilities = (ctypes.c_int32 * k)(), (ctypes.c_float * k)()
    n = context.check(
        binding.ecl_next_tokens(context.handle, floats(state), token, k, tokens, probabilities)
    )
    return tokens[:n], probabilities[:n]


def next_tree(
    context: Context,
    state: npt.NDArray[np.float32],
    token: int,
    options: binding.NextTreeOptions,
) -> tuple[list[int], list[float], list[int]]:
    """The tokens of the draft vocabulary that are likeliest to follow a token, several levels deep,
    by the next-state head.

    Args:
        state: as ``drawn_from`` gives it.

    Returns:
        Tokens, their probabilities given their ancestors, and the index of each one's parent, which
        comes before it; -1 if that is ``token``. The likeliest path comes first.

    Raises:
        BadInput: as for ``next_tokens``.
    """
    most = options.max_nodes
    tokens, parents = (ctypes.c_int32 * most)(), (ctypes.c_int32 * most)()
    probabilities = (ctypes.c_float * most)()
    n = context.check(
        binding.ecl_next_tree(
            *(context.handle, floats(state), token, ctypes.byref(options)),
            *(tokens, probabilities, parents),
        )
    )
    return tokens[:n], probabilities[:n], parents[:n]
