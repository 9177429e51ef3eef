"""How arrays that were learned are kept in numpy's npz files."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

_GROUP = 32  # weights with one scale, as ggml's Q8_0, which the library holds them in

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]


def to_8_bits(weights: Floats) -> tuple[Bytes, Floats]:
    """A matrix in 8 bits: int8 of its shape, and the scales of each row's groups of 32, float32
    [rows, groups]."""
    rows, width = weights.shape
    padded = np.zeros((rows, -(-width // _GROUP) * _GROUP), dtype=np.float32)
    padded[:, :width] = weights
    groups = padded.reshape(rows, -1, _GROUP)
    scales = np.abs(groups).max(axis=2) / 127
    steps = np.where(scales > 0, scales, 1)
    numbers = np.rint(groups / steps[:, :, None]).astype(np.int8)
    return numbers.reshape(rows, -1)[:, :width], scales


def from_8_bits(numbers: Bytes, scales: Floats) -> Floats:
    """The matrix of what ``to_8_bits`` returned.

    Raises:
        ValueError: the shapes do not go together.
    """
    rows, width = numbers.shape
    if scales.shape != (rows, -(-width // _GROUP)):
        raise ValueError("the scales are those of other weights")
    matrix: Floats = numbers * np.repeat(scales.astype(np.float32), _GROUP, axis=1)[:, :width]
    return matrix


def count_arrays(
    counts: Counter[int],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Counts of tokens: the tokens, and how many of each."""
    return (
        np.array(list(counts), dtype=np.int32),
        np.array(list(counts.values()), dtype=np.int64),
    )


def counter_of(
    tokens: npt.NDArray[np.int32], counts: npt.NDArray[np.int64], n_vocab: int
) -> Counter[int] | None:
    """The counts that ``count_arrays`` returned; None if they cannot be those of tokens of such a
    vocabulary."""
    if (
        tokens.shape != counts.shape
        or not ((tokens >= 0) & (tokens < n_vocab) & (counts > 0)).all()
    ):
        return None
    return Counter(dict(zip(tokens.tolist(), counts.tolist(), strict=True)))
