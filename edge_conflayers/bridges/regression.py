"""Teaches a bridge in closed form: one pass over some thousand tokens, numpy only.

``W`` is the ridge regression of what the block adds to the residual stream, over the root mean
square of what enters it::

    W = T A^-1,  A = sum(f f') + r * diag(sum(f f')) / n,  T = sum(y f'),  y = (x_end - x) / rms(x)
"""

from __future__ import annotations

import numpy as np

from edge_conflayers.bridges.bridge import Bridge, Floats
from edge_conflayers.fitting.ridge import RidgeSums

_RIDGE = 300.0  # r, in tokens whose features say nothing; not tuned
_CHUNK = 512  # tokens of one matrix product; not tuned
LEAST_TOKENS = 1024
"""Tokens that teach a bridge at least; not tuned."""


def unit_rms(rows: Floats) -> Floats:
    """Rows over their root mean squares."""
    return rows / rms(rows)


def rms(rows: Floats) -> Floats:
    """Root mean squares: float32 [rows, 1]."""
    squares = np.mean(np.square(rows), axis=1, keepdims=True, dtype=np.float32)
    roots: Floats = np.sqrt(squares + np.float32(1e-12))
    return roots


def features(entering: Floats, before_begin: Floats, before_end: Floats) -> Floats:
    """What the map takes, token by token.

    Args:
        entering: float32 [tokens, n_embd], what enters the block.
        before_begin, before_end: float32 [tokens, n_embd] each, what entered it and left it at the
            token before.

    Returns:
        float32 [tokens, 3 * n_embd + 1].
    """
    ones = np.ones((len(entering), 1), dtype=np.float32)
    return np.hstack([unit_rms(entering), unit_rms(before_begin), unit_rms(before_end), ones])


def across(weights: Floats, entering: Floats, before_begin: Floats, before_end: Floats) -> Floats:
    """What the map says leaves the block: float32 [tokens, n_embd]; arguments as ``features``."""
    change = features(entering, before_begin, before_end) @ weights.T
    leaving: Floats = entering + rms(entering) * change
    return leaving


class BridgeRegression:
    """The sums of a block's regression, over as many tokens as come.

    They take 48 * n_embd^2 bytes, however many tokens there are.

    Args:
        n_embd: width of the model's hidden states.
    """

    def __init__(self, n_embd: int) -> None:
        self._sums = RidgeSums(3 * n_embd + 1, n_embd)

    def __len__(self) -> int:
        """Tokens so far."""
        return len(self._sums)

    def add(self, entering: Floats, leaving: Floats) -> None:
        """Adds the tokens of one text, but for the first, which has none before it.

        Args:
            entering, leaving: float32 [tokens, n_embd], what enters and leaves the block.
        """
        for first in range(1, len(entering), _CHUNK):
            now = slice(first, first + _CHUNK)
            before = slice(first - 1, min(first + _CHUNK, len(entering)) - 1)
            x, y = entering[now], leaving[now]
            self._sums.add(features(x, entering[before], leaving[before]), (y - x) / rms(x))

    def solve(self, begin: int, end: int) -> Bridge:
        """The map that predicts best what leaves the block.

        Raises:
            ValueError: there are no tokens.
        """
        return Bridge(begin, end, np.ascontiguousarray(self._sums.solve(_RIDGE).T))
