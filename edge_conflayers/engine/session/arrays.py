"""Arrays as the library takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def int32_array(values: Sequence[int]) -> Any:
    """A copy as a C array."""
    return (ctypes.c_int32 * len(values))(*values)


def floats(values: npt.NDArray[np.float32]) -> Any:
    """A pointer to a contiguous float32 array, which has to outlive it."""
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def state_rows(
    states: npt.NDArray[np.float32], n_tokens: int, n_embd: int
) -> npt.NDArray[np.float32]:
    """States of any shape as contiguous rows: float32 [n_tokens, n_embd].

    Raises:
        ValueError: they are not that many.
    """
    rows = np.ascontiguousarray(states, dtype=np.float32).reshape(-1, n_embd)
    if len(rows) != n_tokens:
        raise ValueError(f"{len(rows)} states for {n_tokens} tokens")
    return rows
