"""A linear draft head, taught in closed form by texts that the model has written.

The hidden state ``h`` that the LM head takes says which token ``y`` comes next; once ``y`` is
drawn, the next state is predicted as ``W [h; e(y)]`` with ``e(y)`` the token's embedding, and the
model's own LM head says which tokens may follow. That is EAGLE's draft (arXiv 2401.15077) with a
matrix in place of its layer, which knows the drawn token as Hydra's heads do (arXiv 2402.05109).
``W`` is the ridge regression

    W = T A^-1,    A = sum(x x') + r * diag(sum(x x')) / n,    T = sum(h_next x'),    x = [h; e(y)]

so that teaching it takes one pass over a few thousand tokens and no other library.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput

_RIDGE = 800.0  # r: as if so many tokens had been seen whose features say nothing
_PORTION = 256  # tokens taken in at once
_LEAST_LESSONS = 1024

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NextStateHead:
    """What was learned.

    Attributes:
        weights: float32 [n_embd, 2 * n_embd]: W.
        written: how often the model wrote each token of the texts that it was taught by.
    """

    weights: Floats
    written: Counter[int] = field(default_factory=Counter)

    def to_bytes(self) -> bytes:
        """numpy's npz format, weights to half precision; ``from_bytes`` reads it."""
        file = io.BytesIO()
        np.savez(
            file,
            weights=self.weights.astype(np.float16),
            tokens=np.array(list(self.written), dtype=np.int32),
            counts=np.array(list(self.written.values()), dtype=np.int64),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, n_embd: int, n_vocab: int) -> NextStateHead:
        """What ``to_bytes`` gave, for a model of these sizes.

        Raises:
            BadInput: anything else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                weights = arrays["weights"].astype(np.float32)
                tokens, counts = arrays["tokens"], arrays["counts"]
        except Exception as error:  # zipfile and numpy have many names for what is damaged
            raise BadInput(f"this is no next-state head ({error}); run `tune` anew") from None
        if (
            weights.shape != (n_embd, 2 * n_embd)
            or not np.isfinite(weights).all()
            or tokens.shape != counts.shape
            or not ((tokens >= 0) & (tokens < n_vocab) & (counts > 0)).all()
        ):
            raise BadInput("this is the next-state head of another model; run `tune` anew")
        return cls(weights, Counter(dict(zip(tokens.tolist(), counts.tolist(), strict=True))))


class Lessons:
    """What a next-state head is taught by: sums over the tokens of texts, which take
    24 * n_embd^2 bytes however many tokens there are."""

    def __init__(self, n_embd: int) -> None:
        self.n_embd = n_embd
        self.written: Counter[int] = Counter()
        self._inner = np.zeros((2 * n_embd, 2 * n_embd), dtype=np.float32)  # sum(x x')
        self._cross = np.zeros((2 * n_embd, n_embd), dtype=np.float32)  # sum(x h_next')
        self._x: list[Floats] = []
        self._next: list[Floats] = []
        self._taken = 0

    def __len__(self) -> int:
        """Tokens so far."""
        return self._taken + len(self._x)

    def add(self, state: Floats, token: int, embedding: Floats, next_state: Floats) -> None:
        """One token that was drawn from a state, and the state of the step that read it."""
        self.written[token] += 1
        self._x.append(np.concatenate([state, embedding]))
        self._next.append(next_state)
        if len(self._x) == _PORTION:
            self._take_in()

    def _take_in(self) -> None:
        if self._x:
            x, after = np.stack(self._x), np.stack(self._next)
            self._inner += x.T @ x
            self._cross += x.T @ after
            self._taken += len(x)
            self._x.clear()
            self._next.clear()

    @property
    def enough(self) -> bool:
        """Whether there is something to learn."""
        return len(self) >= _LEAST_LESSONS

    def learn(self) -> NextStateHead:
        """The head that predicts these texts best.

        Raises:
            ValueError: there are hardly any.
        """
        self._take_in()
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
