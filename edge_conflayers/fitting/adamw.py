"""The optimizer AdamW (arXiv 1711.05101)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_MEAN, _SQUARE = 0.9, 0.98  # betas


class AdamW:
    """The moments of one array's gradients.

    Args:
        weights: float32, which ``step`` changes in place.
        decay: of the weights, times the rate.
    """

    def __init__(self, weights: Floats, decay: float) -> None:
        self.steps = 0
        self._weights = weights
        self._decay = decay
        self._mean = np.zeros_like(weights)
        self._square = np.zeros_like(weights)

    def step(self, gradient: Floats, rate: float) -> None:
        """Goes down a gradient."""
        self.steps += 1
        self._mean += (1 - _MEAN) * (gradient - self._mean)
        self._square += (1 - _SQUARE) * (np.square(gradient) - self._square)
        mean = self._mean / (1 - _MEAN**self.steps)
        square = self._square / (1 - _SQUARE**self.steps)
        self._weights -= rate * (mean / (np.sqrt(square) + 1e-8) + self._decay * self._weights)
