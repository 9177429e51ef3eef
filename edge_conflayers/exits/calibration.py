"""How sure an exit must be: one threshold an exit, for one level of accuracy (DSSD, arXiv
2407.21082)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

NEVER = -1.0
"""The threshold of an exit that is not sure enough of anything: no entropy is under it."""


def calibrate(
    entropies: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], epsilon: float
) -> tuple[float, ...]:
    """The threshold of each exit, by held-out tokens.

    Of the tokens that an exit is the first to be sure of, at least a share ``epsilon`` is right.

    Args:
        entropies: [exits, tokens], of each exit's distribution, in nats; the first exit first.
        right: [exits, tokens], whether the exit's likeliest token is the full model's.
        epsilon: the accuracy, 0 to 1: with 0 the first exit is always sure enough.

    Returns:
        The largest entropy with which each exit is sure enough; ``NEVER`` where there is none.
    """
    left = np.ones(entropies.shape[1], dtype=bool)  # tokens that no exit so far is sure of
    thresholds = []
    for entropy, hits in zip(entropies, right, strict=True):
        thresholds.append(threshold_of(entropy[left], hits[left], epsilon))
        left &= entropy > thresholds[-1]
    return tuple(thresholds)


def threshold_of(
    entropy: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], epsilon: float
) -> float:
    """The largest threshold whose tokens, those of at most this entropy, are right as often as
    ``epsilon`` says; infinity if all tokens together are."""
    if len(entropy) == 0:
        return NEVER
    order = np.argsort(entropy, kind="stable")
    ascending = entropy[order]
    accuracy = right[order].cumsum() / np.arange(1, len(order) + 1)
    # Tokens of the same entropy are taken together.
    ends = np.append(ascending[1:] > ascending[:-1], True)
    enough = np.flatnonzero(ends & (accuracy >= epsilon))
    if len(enough) == 0:
        return NEVER
    last = int(enough[-1])
    return math.inf if last == len(order) - 1 else float(ascending[last])
