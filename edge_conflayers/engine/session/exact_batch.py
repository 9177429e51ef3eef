"""How many tokens a step may take so that each gets the logits of a one-token step, bit for bit.

Our kernels, and upstream's on the CPU, are built to keep that (native/src/kernels/ggml_marks.h).
A compiler, a BLAS library or a GPU backend may break it, so it is tried once for each model, choice
of kernels and machine.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import KernelChoice

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

_CPU_SIZES: Mapping[KernelChoice, Sequence[int]] = {"ecl": (2, 8), "upstream": (2, 4)}
"""Sizes to try on a CPU. Ours multiply up to 8 columns in a pass and more in several passes of the
same kernels, and upstream's run token by token: larger steps take no other path. Trying these takes
about six steps' time with ours and nine with upstream's."""

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
    room = min(text.room, text.max_outputs)
    sizes: Sequence[int]
    if model.on_gpu:
        most, sizes = ON_GPU, range(2, ON_GPU + 1)
        room = min(room, within_stride(len(text)))
    else:
        most, sizes = ON_CPU, _CPU_SIZES[model.kernels]
    fitting = [n for n in sizes if n <= room]
    found = tried(text, fitting) if fitting else None
    if found is None and len(fitting) < len(sizes):
        return fitting[-1] if fitting else 1  # more room might show more: not remembered
    remembered[setting] = most if found is None else found
    return remembered[setting]


def tried(text: CachedText, sizes: Sequence[int]) -> int | None:
    """Tries steps of so many tokens where the text ends, and leaves the text as it was.

    Args:
        sizes: ascending, from 2 on; those between are tried where one differs.

    Returns:
        The largest size before the first that differs; None if none of them differs.

    Raises:
        EdgeConflayersError: a step failed, or the model cannot forget tokens.
    """
    begin = len(text)
    tokens = text.model.repeated(_TEXT, sizes[-1])
    alone: list[npt.NDArray[np.uint32]] = []
    exact = 1
    try:
        for token in tokens if text.model.on_gpu else tokens[:1]:
            text.step([token], outputs="all")
            alone.append(_bits(text, 0))
        for size in sizes:
            if not _is_exact(text, begin, tokens[:size], alone):
                while exact + 1 < size and _is_exact(text, begin, tokens[: exact + 1], alone):
                    exact += 1
                return exact
            exact = size
        return None
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
    bits: npt.NDArray[np.uint32] = text.logits(index).copy().view(np.uint32)
    return bits


def _setting(text: CachedText) -> Setting:
    model = text.model
    file = model.path.stat()
    kernels = binding.kernels(model.kernels)
    return Setting(
        model=" ".join(filter(None, (str(model.path.resolve()), model.changes))),
        size=file.st_size,
        modified_ns=file.st_mtime_ns,
        kernels=f"{model.kernels} {kernels['isa']}",
        gpu_layers=model.gpu_layers,
        flash_attention=text.flash_attention,
        kv_type=text.kv_type,
        threads=text.threads,
    )
