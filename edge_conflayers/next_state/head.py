"""A linear draft head, taught in closed form by texts that the model has written.

The hidden state ``h`` that the LM head takes says which token ``y`` comes next; once ``y`` is
drawn, the next state is predicted as ``W [h; g; e(y)]`` with ``g`` an inner layer's state at the
same place and ``e(y)`` the token's embedding, and the model's own LM head says which tokens may
follow. That is EAGLE's draft (arXiv 2401.15077) with a matrix in place of its layer, which knows
the drawn token as Hydra's heads do (arXiv 2402.05109) and an inner layer as EAGLE-3 does
(arXiv 2503.01840): the last layers give up what is known of later tokens for the next one.
``W`` is the ridge regression

    W = T A^-1,  A = sum(x x') + r * diag(sum(x x')) / n,  T = sum(h_next x'),  x = [h; g; e(y)]

so that teaching it takes one pass over a few thousand tokens and no other library.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput

FORESEEN_AMONG = 4096
"""Size of the draft vocabulary that tokens are foreseen among: with twice as many asking takes half
as long again, and texts were slower by a hundredth."""

_RIDGE = 800.0  # r: as if so many tokens had been seen whose features say nothing
_PORTION = 256  # tokens taken in at once
_LEAST_LESSONS = 1024

Floats = npt.NDArray[np.float32]


def inner_layer(n_layer: int) -> int:
    """The layer whose entering state a head takes: of the layers tried on a model of 28 (12, 16,
    20, 22, 24 and 26), the one that had it foresee most."""
    return 4 * n_layer // 5


@dataclass(frozen=True)
class NextStateHead:
    """What was learned.

    Attributes:
        weights: float32 [n_embd, 3 * n_embd]: W.
        written: how often each token occurred in the texts that it was taught by.
        chances: of what it foresees in other texts: by bins of its own probability, how many
            tokens and how many of them were right, as ``AcceptanceRates`` counts.
    """

    weights: Floats
    written: Counter[int] = field(default_factory=Counter)
    chances: tuple[tuple[float, float], ...] = ()

    def to_bytes(self) -> bytes:
        """numpy's npz format, weights to half precision; ``from_bytes`` reads it."""
        file = io.BytesIO()
        np.savez(
            file,
            weights=self.weights.astype(np.float16),
            tokens=np.array(list(self.written), dtype=np.int32),
            counts=np.array(list(self.written.values()), dtype=np.int64),
            chances=np.array(self.chances, dtype=np.float64).reshape(-1, 2),
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
                chances = tuple((float(tried), float(right)) for tried, right in arrays["chances"])
        except Exception as error:  # zipfile and numpy have many names for what is damaged
            raise BadInput(f"this is no next-state head ({error}); run `tune` anew") from None
        if (
            weights.shape != (n_embd, 3 * n_embd)
            or not np.isfinite(weights).all()
            or tokens.shape != counts.shape
            or not ((tokens >= 0) & (tokens < n_vocab) & (counts > 0)).all()
            or not all(0 <= right <= tried < math.inf for tried, right in chances)
        ):
            raise BadInput("this is the next-state head of another model; run `tune` anew")
        written = Counter(dict(zip(tokens.tolist(), counts.tolist(), strict=True)))
        return cls(weights, written, chances)


class Lessons:
    """What a next-state head is taught by: sums over the tokens of texts, which take
    48 * n_embd^2 bytes however many tokens there are."""

    def __init__(self, n_embd: int) -> None:
        self.n_embd = n_embd
        self.written: Counter[int] = Counter()
        self._inner = np.zeros((3 * n_embd, 3 * n_embd), dtype=np.float32)  # sum(x x')
        self._cross = np.zeros((3 * n_embd, n_embd), dtype=np.float32)  # sum(x h_next')
        self._x: list[Floats] = []
        self._next: list[Floats] = []
        self._taken = 0

    def __len__(self) -> int:
        """Tokens so far."""
        return self._taken + len(self._x)

    def add(self, states: Floats, token: int, embedding: Floats, next_state: Floats) -> None:
        """One token.

        Args:
            states: float32 [2 * n_embd], hidden and inner state of the place it was drawn from.
            embedding: float32 [n_embd], of the token.
            next_state: float32 [n_embd], the hidden state of the step that read it.
        """
        self.written[token] += 1
        self._x.append(np.concatenate([states, embedding]))
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
