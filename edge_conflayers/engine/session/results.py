"""What calls of a session take and return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Outputs = Literal["none", "last", "all"]

MOST_WRITTEN = 16
"""Most tokens of one call of ``write``; not tuned (a caller gives a time limit as well)."""

MOST_REPLAYED = 32
"""Most tokens of one step of a replay: the most that our kernels for small batches take."""

Confidences = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Stretch:
    """Some tokens of plain decoding.

    Attributes:
        tokens: the tokens drawn, in order; at least one.
        seconds: the time of each token's step.
        woken: whether a lookup has ended it, having found a draft.
    """

    tokens: list[int]
    seconds: list[float]
    woken: bool


@dataclass(frozen=True)
class GraphStats:
    """Compute graphs of a session.

    Attributes:
        built: graphs built so far.
        build_seconds: time spent building them.
        alive: graphs that are kept for further steps.
    """

    built: int
    build_seconds: float
    alive: int
