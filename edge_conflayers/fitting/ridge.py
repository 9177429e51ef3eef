"""Ridge regression, over as many samples as come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class RidgeSums:
    """The sums of a regression; they do not grow with the samples.

    Args:
        n_inputs, n_outputs: numbers of a sample.
    """

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        self._inner = np.zeros((n_inputs, n_inputs), dtype=np.float32)  # sum(x x')
        self._cross = np.zeros((n_inputs, n_outputs), dtype=np.float32)  # sum(x y')
        self._n = 0

    def __len__(self) -> int:
        """Samples so far."""
        return self._n

    def add(self, x: Floats, y: Floats) -> None:
        """Adds samples: float32 [n, n_inputs] and [n, n_outputs]."""
        self._inner += x.T @ x
        self._cross += x.T @ y
        self._n += len(x)

    @property
    def root_mean_squares(self) -> Floats:
        """Of each input, float32 [n_inputs]; of one that is always zero a little, so that it can be
        divided by."""
        squares = self._inner.diagonal()
        roots: Floats = np.sqrt(np.maximum(squares, 1e-12 * squares.max()) / self._n)
        return roots

    def solve(self, ridge: float) -> Floats:
        """The map from x to y with the least squared error,

            W = (A + r * diag(A) / n)^-1 sum(x y'),  A = sum(x x').

        Each input is on its own scale; one that is always zero gets no weight.

        Args:
            ridge: r, in samples whose inputs say nothing.

        Returns:
            float32 [n_inputs, n_outputs].

        Raises:
            ValueError: there are no samples.
        """
        if not self._n:
            raise ValueError("no samples teach nothing")
        squares = self._inner.diagonal()
        scale = 1 / np.sqrt(np.maximum(squares, 1e-12 * squares.max()))
        inner = self._inner * scale[:, None] * scale
        inner[np.diag_indices_from(inner)] += ridge / self._n
        solved: Floats = np.linalg.solve(inner, self._cross * scale[:, None])
        solved *= scale[:, None]
        return solved
