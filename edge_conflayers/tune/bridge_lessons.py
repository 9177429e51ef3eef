"""Teaches bridges over blocks of layers while texts are written.

The sums take some 3 % of the operations that writing takes (0.5B, counted).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_conflayers.bridges.bridge import Bridge, Floats
from edge_conflayers.bridges.regression import LEAST_TOKENS, BridgeRegression
from edge_conflayers.bridges.search import Block
from edge_conflayers.tune.parallel_texts import (
    FinishedText,
    ParallelTexts,
    Request,
    TrainingToken,
)

ENOUGH_TOKENS = 40_000
"""Tokens that teach one block, before it is the next one's turn. Over layers 2 to 15 of the 0.5B,
60 % of drafted tokens were right with 5,800 tokens, 66 % with 17,500, 70 % with 66,700
(2026-11-28)."""


class BridgeLessons:
    """Learns from the texts that are written: one block after the other.

    Args:
        texts: write what is learned from, and keep what enters and leaves the block.
        blocks: at least one, the most promising first.

    Raises:
        BadInput: the model cannot be served by bridges.
    """

    def __init__(self, texts: ParallelTexts, blocks: Sequence[Block]) -> None:
        self._texts = texts
        self._waiting = list(blocks)
        self._parts: dict[Request, list[Floats]] = {}  # of texts that have not ended
        self._taught: list[Bridge] = []
        self._begin()

    def _begin(self) -> None:
        self._block = self._waiting.pop(0)
        self._regression = BridgeRegression(self._texts.model.n_embd)
        self._texts.keep_around(self._block)

    def take(self, each: TrainingToken | FinishedText) -> None:
        """Takes in what ``ParallelTexts.write`` yields."""
        if isinstance(each, TrainingToken):
            if each.around is not None:
                self._parts.setdefault(each.request, []).append(each.around)
            return
        self._add(self._parts.pop(each.request, []))
        if self._waiting and len(self._regression) >= ENOUGH_TOKENS:
            self._solve()
            self._begin()

    def finish(self) -> list[Bridge]:
        """The bridges of the blocks that had tokens enough."""
        self._solve()
        return self._taught

    def _add(self, part: list[Floats]) -> None:
        if part:
            entering, leaving = np.stack(part, axis=1)
            self._regression.add(entering, leaving)

    def _solve(self) -> None:
        for part in self._parts.values():
            self._add(part)
        self._parts.clear()
        if len(self._regression) >= LEAST_TOKENS:
            self._taught.append(self._regression.solve(*self._block))
