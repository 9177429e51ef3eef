"""Tokens from rows of logits, by the library that draws llama.cpp's tokens."""

from __future__ import annotations

import ctypes
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine import binding
from edge_conflayers.engine.session.arrays import floats
from edge_conflayers.errors import BadInput, EdgeConflayersError

Row = npt.NDArray[np.float32]


def argmax(row: Row) -> int:
    """The most likely token; of equals, the lowest."""
    return _checked(binding.ecl_row_argmax(floats(row), len(row), None))


def best(row: Row) -> tuple[int, float]:
    """The most likely token and its softmax probability."""
    probability = ctypes.c_float()
    token = binding.ecl_row_argmax(floats(row), len(row), ctypes.byref(probability))
    return _checked(token), probability.value


def top_k(row: Row, k: int) -> tuple[list[int], list[float]]:
    """The ``k`` most likely tokens in descending order, and their softmax probabilities."""
    k = max(0, min(k, len(row)))
    tokens, probabilities = (ctypes.c_int32 * k)(), (ctypes.c_float * k)()
    n = _checked(binding.ecl_row_top_k(floats(row), len(row), k, tokens, probabilities))
    return tokens[:n], probabilities[:n]


def draw(row: Row, samplers: binding.Samplers) -> int:
    """Draws a token.

    Raises:
        BadInput: a grammar allows no token.
        EdgeConflayersError: the samplers select none.
        BaseException: what a grammar that calls back into Python has raised.
    """
    token = int(binding.ecl_row_draw(floats(row), len(row), ctypes.byref(samplers)))
    if token < 0:
        samplers.check()
        _fail(token)
    return token


def _checked(status: int) -> int:
    if status < 0:
        _fail(status)
    return status


def _fail(status: int) -> NoReturn:
    if status == binding.FORBIDDEN:
        raise BadInput("the grammar allows no token here; check that it can be completed")
    raise EdgeConflayersError(f"no token can be drawn (code {status}); the model may be damaged")
