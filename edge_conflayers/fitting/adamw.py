"""The optimizer AdamW (arXiv 1711.05101)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_MEAN, _SQUARE = 0.9, 0.98  # betas
_BLOCK = 1 << 15
"""Weights of one pass through the formulas, which then stay in the cache."""


class AdamW:
    """The moments of one array's gradients.

    Args:
        weights: float32, contiguous, which ``step`` changes in place.
        decay: of the weights, times the rate.
    """

    def __init__(self, weights: Floats, decay: float) -> None:
        self.steps = 0
        self._weights = weights.reshape(-1)
        if not np.shares_memory(self._weights, weights):
            raise ValueError("the weights are not contiguous")
        self._decay = decay
        self._mean = np.zeros_like(self._weights)
        self._square = np.zeros_like(self._weights)
        self._scratch = np.empty((2, min(_BLOCK, weights.size)), np.float32)

    def step(self, gradient: Floats, rate: float) -> None:
        """Goes down a gradient."""
        self.steps += 1
        gradient = gradient.reshape(-1)
        for begin in range(0, len(gradient), _BLOCK):
            self._step(slice(begin, begin + _BLOCK), gradient[begin : begin + _BLOCK], rate)

    def _step(self, block: slice, gradient: Floats, rate: float) -> None:
        weights, mean, square = self._weights[block], self._mean[block], self._square[block]
        change, root = self._scratch[:, : len(gradient)]
        mean *= _MEAN
        mean += np.multiply(gradient, 1 - _MEAN, out=change)
        square *= _SQUARE
        np.square(gradient, out=change)
        square += np.multiply(change, 1 - _SQUARE, out=change)
        np.sqrt(np.divide(square, 1 - _SQUARE**self.steps, out=root), out=root)
        root += 1e-8
        np.divide(mean, root, out=change)
        change *= rate / (1 - _MEAN**self.steps)
        weights *= 1 - rate * self._decay
        weights -= change
