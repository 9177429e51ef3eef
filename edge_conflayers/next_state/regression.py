"""Teaches a next-state head in closed form: one pass over a few thousand tokens, numpy only.

``W`` is the ridge regression

    W = T A^-1,  A = sum(x x') + r * diag(sum(x x')) / n,  T = sum([h'; g'] x'),  x = [h; g; e(y)]
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from edge_conflayers.next_state.head import Floats, NextStateHead

_RIDGE = 800.0  # r, in tokens whose features say nothing; how it was chosen is not recorded
_CHUNK = 256  # tokens of one matrix product; not tuned
_LEAST_TOKENS = 1024  # not tuned


class HeadRegression:
    """The sums of the regression, over as many tokens as come.

    They take 60 * n_embd^2 bytes, however many tokens there are.

    Args:
        n_embd: width of the model's hidden states.
    """

    def __init__(self, n_embd: int) -> None:
        self.n_embd = n_embd
        self.written: Counter[int] = Counter()
        self._inner = np.zeros((3 * n_embd, 3 * n_embd), dtype=np.float32)  # sum(x x')
        self._cross = np.zeros((3 * n_embd, 2 * n_embd), dtype=np.float32)  # sum(x [h'; g']')
        self._x: list[Floats] = []  # of the chunk that is being filled
        self._next: list[Floats] = []
        self._summed = 0  # tokens

    def __len__(self) -> int:
        """Tokens so far."""
        return self._summed + len(self._x)

    def add(self, states: Floats, token: int, embedding: Floats, next_state: Floats) -> None:
        """Adds one token.

        Args:
            states: float32 [2 * n_embd], hidden and inner state at the position it was drawn from.
            embedding: float32 [n_embd], the token's.
            next_state: float32 [2 * n_embd], hidden and inner state of the step that read it.
        """
        self.written[token] += 1
        self._x.append(np.concatenate([states, embedding]))
        self._next.append(next_state)
        if len(self._x) == _CHUNK:
            self._sum()

    def _sum(self) -> None:
        if self._x:
            x, after = np.stack(self._x), np.stack(self._next)
            self._inner += x.T @ x
            self._cross += x.T @ after
            self._summed += len(x)
            self._x.clear()
            self._next.clear()

    @property
    def enough(self) -> bool:
        """Whether there are tokens enough to solve it."""
        return len(self) >= _LEAST_TOKENS

    def solve(self) -> NextStateHead:
        """The head that predicts these tokens' next states best.

        Raises:
            ValueError: there are fewer than 1024 tokens.
        """
        self._sum()
        if not self.enough:
            raise ValueError(f"{len(self)} tokens teach nothing")
        squares = self._inner.diagonal()
        # Each feature on its own scale; one that is always zero gets no weight.
        scale = 1 / np.sqrt(np.maximum(squares, 1e-12 * squares.max()))
        inner = self._inner * scale[:, None] * scale
        inner[np.diag_indices_from(inner)] += _RIDGE / len(self)
        solved = np.linalg.solve(inner, self._cross * scale[:, None])
        return NextStateHead(
            np.ascontiguousarray((solved * scale[:, None]).T, dtype=np.float32),
            Counter(self.written),
        )
