"""How many tokens a step may take so that the logits of each are a one-token step's to the bit.

On the CPU our kernels see to that. On a GPU it depends on the kernels that the backend chooses for
so many tokens (native/patches/ggml-cuda-small-batches.patch), so it is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edge_conflayers.engine.session.cached_text import CachedText

ON_CPU = 31
"""Our kernels would take one more (ECL_SMALL_BATCH of native/src/kernels). But products over 32
tokens llama.cpp may hand to BLAS, or to a GPU on which the model has no layers."""

_MOST_TRIED = 8
"""GPU backends have kernels of their own for so many tokens (ggml-cuda's MMVQ_MAX_BATCH_SIZE)."""

_STRIDE = 256
"""Tokens by which attention sees the cache grow (llama_kv_cache::get_n_kv). How a GPU's kernels
divide their sums depends on it, so a step must not reach into the next stride."""

_TEXT = "The lighthouse keeper counted 47 ships."


def within_stride(position: int) -> int:
    """Tokens from this position on to the end of its stride."""
    return _STRIDE - position % _STRIDE


def exact_batch(text: CachedText) -> int:
    """Tries it where the text ends, and leaves the text as it was, but for the last step's logits.

    Returns:
        from 1, where steps of two tokens differ already or there is no room to try, to 8; 31 on the
        CPU.

    Raises:
        EdgeConflayersError: a step failed, or the model cannot forget tokens.
    """
    if not text.model.on_gpu:
        return ON_CPU
    begin = len(text)
    most = min(_MOST_TRIED, text.room, text.max_outputs, within_stride(begin))
    if most < 2:
        return 1
    tokens = text.model.repeated(_TEXT, most)
    try:
        alone = np.concatenate([_logits(text, [token]) for token in tokens])
        for n in range(2, most + 1):
            text.rollback(begin)
            if not np.array_equal(_logits(text, tokens[:n]), alone[:n]):
                return n - 1
        return most
    finally:
        text.rollback(begin)


def _logits(text: CachedText, tokens: Sequence[int]) -> npt.NDArray[np.uint32]:
    """The bits of each token's logits: [tokens, n_vocab]."""
    text.step(tokens, outputs="all")
    return np.stack([text.logits(i) for i in range(len(tokens))]).view(np.uint32)
