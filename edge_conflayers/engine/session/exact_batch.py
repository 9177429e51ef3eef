"""How many tokens a step may take so that each gets the logits of a one-token step, bit for bit.

Our kernels, and upstream's on the CPU, are built to keep that (native/src/kernels/ggml_marks.h).
A compiler, a BLAS library or a GPU backend may break it, so it is tried once for each model, choice
of kernels and machine.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding

if TYPE_CHECKING:
    from edge_conflayers.engine.session.cached_text import CachedText

ON_CPU = 31
"""Most tokens on a CPU. ECL_SMALL_BATCH of native/src/kernels allows one more, but products over 32
tokens llama.cpp may hand to BLAS, or to a GPU on which the model has no layers."""

ON_GPU = 8
"""Most tokens on a GPU, whose backends have kernels of their own for so many (ggml-cuda's
MMVQ_MAX_BATCH_SIZE)."""

_STRIDE = 256
"""Tokens by which attention sees the cache grow (llama_kv_cache::get_n_kv). How a GPU's kernels
divide their sums depends on it, so a step must not reach into the next stride."""

_CPU_SIZES = (2, 4, 7, 11, 31)
"""Sizes to try on a CPU. Our kernels take 1 to 8 columns in one pass, and more in passes of nearly
equal width (ColumnBlocks of native/src/kernels): these sizes run passes of 2, 4, 5, 6, 7 and 8
columns, up to four passes a product. Upstream's kernels change at 2 and 4 columns."""

_CPU_ALONE = 4
"""Tokens at the start of a batch, and with them its last, that are compared on a CPU."""

_TEXT = "The lighthouse keeper counted 47 ships."


class Setting(NamedTuple):
    """What the answer depends on, beside the machine."""

    model: str
    size: int
    modified_ns: int
    kernels: str
    gpu_layers: int
    flash_attention: bool | None
    kv_type: str
    threads: int


remembered: MutableMapping[Setting, int] = {}
"""Answers by setting. Whoever keeps them between runs puts a mapping here that reads and writes a
file, for this machine."""


def within_stride(position: int) -> int:
    """Tokens from this position on to the end of its stride."""
    return _STRIDE - position % _STRIDE


def exact_batch(text: CachedText) -> int:
    """The answer that is remembered, or else one that is tried where the text ends. Trying leaves
    the text as it was, but for the last step's logits.

    Returns:
        From 1, where steps of two tokens differ already or there is no room to try, to ``ON_GPU``
        or ``ON_CPU``.

    Raises:
        EdgeConflayersError: a step failed, or on a GPU the model cannot forget tokens.
    """
    model = text.model
    if not binding.kernels(model.kernels)["exact"]:
        return 1  # by how much batches differ also depends on the text's length: no short try tells
    if not model.on_gpu and not model.forgets:
        return ON_CPU  # nothing can be tried, and no draft that is wrong can be taken back
    setting = _setting(text)
    known = remembered.get(setting)
    if known is not None:
        return known
    most = ON_GPU if model.on_gpu else ON_CPU
    room = min(most, text.room, text.max_outputs)
    if model.on_gpu:
        room = min(room, within_stride(len(text)))
    found = tried(text, room)
    if found < room or room == most:  # else a longer try might show more
        remembered[setting] = found
    return found


def tried(text: CachedText, most: int) -> int:
    """Tries steps of up to so many tokens; as ``exact_batch``."""
    if most < 2:
        return 1
    begin = len(text)
    tokens = text.model.repeated(_TEXT, most)
    on_gpu = text.model.on_gpu
    sizes = range(2, most + 1) if on_gpu else sorted({*(n for n in _CPU_SIZES if n < most), most})
    try:
        alone = []
        for token in tokens if on_gpu else tokens[:_CPU_ALONE]:
            text.step([token], outputs="all")
            alone.append(_bits(text, 0))
        exact = 1
        for n in sizes:
            if not _is_exact(text, begin, tokens[:n], alone):
                between = range(exact + 1, n)
                return next(
                    (m - 1 for m in between if not _is_exact(text, begin, tokens[:m], alone)), n - 1
                )
            exact = n
        return most
    finally:
        text.rollback(begin)


def _is_exact(
    text: CachedText, begin: int, tokens: Sequence[int], alone: Sequence[npt.NDArray[np.uint32]]
) -> bool:
    """Whether a step over tokens gives the first ones, and the last, the logits of steps over each.

    Args:
        begin: where the step begins; what the text holds from there on is forgotten.
        alone: logits of the first tokens in steps of their own.
    """
    text.rollback(begin)
    text.step(tokens, outputs="all")
    last = _bits(text, len(tokens) - 1)
    if not all(np.array_equal(_bits(text, i), row) for i, row in enumerate(alone[: len(tokens)])):
        return False
    if len(tokens) <= len(alone):
        return True
    text.rollback(begin + len(tokens) - 1)
    text.step(tokens[-1:], outputs="all")
    return np.array_equal(_bits(text, 0), last)


def _bits(text: CachedText, index: int) -> npt.NDArray[np.uint32]:
    return text.logits(index).view(np.uint32).copy()


def _setting(text: CachedText) -> Setting:
    model = text.model
    file = model.path.stat()
    kernels = binding.kernels(model.kernels)
    return Setting(
        model=str(model.path.resolve()),
        size=file.st_size,
        modified_ns=file.st_mtime_ns,
        kernels=f"{model.kernels} {kernels['isa']}",
        gpu_layers=model.gpu_layers,
        flash_attention=text.flash_attention,
        kv_type=text.kv_type,
        threads=text.threads,
    )
