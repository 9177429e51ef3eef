"""Texts of worlds in which the next states are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_conflayers.next_state.training_data import TrainingData

WIDTH, VOCABULARY = 12, 500


def linear_world(
    n: int, *, noise: float = 0.0, scale: float = 1.0, silent: int | None = None, seed: int = 3
) -> tuple[TrainingData, np.ndarray, Callable[[int], np.ndarray]]:
    """Texts of one token each, n in all, whose next states are a linear map of what was before.

    Args:
        noise: of the next states.
        scale: of the embeddings.
        silent: a feature of the states that is always zero.

    Returns:
        The texts, the map, and the embeddings.
    """
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(2 * WIDTH, 3 * WIDTH))
    embeddings = rng.normal(size=(VOCABULARY, WIDTH))
    data = TrainingData(WIDTH)
    for _ in range(n):
        state, token = rng.normal(size=2 * WIDTH), int(rng.integers(VOCABULARY))
        if silent is not None:
            state[silent] = 0
        after = truth @ np.concatenate([state, embeddings[token]])
        after += noise * rng.normal(size=2 * WIDTH)
        data.add([token], [each.astype(np.float32) for each in (state, after)])
    truth[:, 2 * WIDTH :] /= scale
    return data, truth, lambda token: (scale * embeddings[token]).astype(np.float32)
