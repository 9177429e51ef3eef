"""A text of a session, kept to be put back."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.engine.session.cached_text import CachedText

_SEQUENCE = 0  # the text's


@dataclass(frozen=True)
class SavedText:
    """A text of a session.

    Attributes:
        tokens: all of them.
        whole_batches: tokens at its beginning that were read in whole batches.
        data: keys and values, as llama.cpp saves them; empty if they are to be computed again.
    """

    tokens: tuple[int, ...]
    whole_batches: int = 0
    data: bytes = b""


def saved(text: CachedText) -> SavedText:
    """See ``KeepsText.saved``. Keys and values are part of it where all of them can be put back:
    of a sliding window, llama.cpp saves no more than the next token needs."""
    windowed = llama.llama_model_n_swa(text.model.handle) > 0
    if windowed or not text.model.forgets:
        return SavedText(tuple(text.tokens))
    size = llama.llama_state_seq_get_size(text.handle, _SEQUENCE)
    data = (ctypes.c_uint8 * size)()
    n = llama.llama_state_seq_get_data(text.handle, data, size, _SEQUENCE)
    return SavedText(tuple(text.tokens), text.read_batches.end, bytes(data[:n]))


def restore(text: CachedText, saved: SavedText) -> None:
    """See ``KeepsText.restore``."""
    text.clear()
    if not saved.data:
        return
    size = len(saved.data)
    data = (ctypes.c_uint8 * size).from_buffer_copy(saved.data)
    if len(saved.tokens) > text.n_ctx or (
        llama.llama_state_seq_set_data(text.handle, data, size, _SEQUENCE) != size
    ):
        text.clear()
        raise BadInput("the state is of another model or a larger context; make a new one")
    text.tokens.extend(saved.tokens)
    text.read_batches.restore(saved.whole_batches)
