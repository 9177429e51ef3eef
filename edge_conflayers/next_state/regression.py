"""A next-state head in closed form: the ridge regression that cross-entropy starts from."""

from __future__ import annotations

import numpy as np

from edge_conflayers.next_state.head import Floats
from edge_conflayers.next_state.training_data import Features

_RIDGE = 800.0  # r, in tokens whose features say nothing; how it was chosen is not recorded
_CHUNK = 2048  # tokens of one matrix product; not tuned


def ridge(features: Features) -> Floats:
    """The map from ``features.inputs`` to ``features.targets`` with the least squared error,

        W = A^-1 T,  A = sum(x x') + r * diag(sum(x x')) / n,  T = sum(x [h'; g']').

    Args:
        features: at least one sample.

    Returns:
        float32 [3 * n_embd, 2 * n_embd].
    """
    n_embd, samples = features.n_embd, features.samples
    inner = np.zeros((3 * n_embd, 3 * n_embd), dtype=np.float32)
    cross = np.zeros((3 * n_embd, 2 * n_embd), dtype=np.float32)
    for begin in range(0, len(samples), _CHUNK):
        places = samples[begin : begin + _CHUNK]
        x = features.inputs(places)
        inner += x.T @ x
        cross += x.T @ features.targets(places)
    squares = inner.diagonal()
    # Each feature on its own scale; one that is always zero gets no weight.
    scale = 1 / np.sqrt(np.maximum(squares, 1e-12 * squares.max()))
    inner = inner * scale[:, None] * scale
    inner[np.diag_indices_from(inner)] += _RIDGE / len(samples)
    solved: Floats = np.linalg.solve(inner, cross * scale[:, None])
    solved *= scale[:, None]
    return solved
