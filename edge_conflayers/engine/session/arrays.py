"""C arrays for calls of the library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def int32_array(values: Sequence[int]) -> Any:
    """A copy of the values as a C array of int32."""
    return (ctypes.c_int32 * len(values))(*values)


def floats(values: npt.NDArray[np.float32]) -> Any:
    """A pointer to the values of a contiguous float32 array, which must outlive it."""
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def state_rows(
    states: npt.NDArray[np.float32], n_tokens: int, n_embd: int
) -> npt.NDArray[np.float32]:
    """States of any shape as a contiguous array, float32 [n_tokens, n_embd].

    Raises:
        ValueError: another number of states.
    """
    rows = np.ascontiguousarray(states, dtype=np.float32).reshape(-1, n_embd)
    if len(rows) != n_tokens:
        raise ValueError(f"{len(rows)} states for {n_tokens} tokens")
    return rows
