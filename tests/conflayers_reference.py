"""The published confidence of a sub-layer (ConfLayers, arXiv 2604.14612), in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def module_confidence(outputs: npt.NDArray[Any]) -> np.float16:
    """The confidence of one sub-layer, which the library computes in its graph.

    1 - H / log(width), where H is the entropy in nats, with log(p + 1e-12), of the softmax over the
    width, mean over tokens; in float32, rounded to float16.

    Args:
        outputs: float [tokens, width], the sub-layer's outputs before the residual add.

    Raises:
        ValueError: no token, or a width under two.
    """
    x = np.asarray(outputs, dtype=np.float32)
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 2:
        raise ValueError(f"outputs must be [tokens >= 1, width >= 2], not {x.shape}")
    e = np.exp(x - x.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    entropy = -(p * np.log(p + np.float32(1e-12))).sum(axis=1).mean()
    confidence: np.float16 = np.float16(np.float32(1) - entropy / np.float32(math.log(x.shape[1])))
    return confidence
