"""What a next-state head learns from: texts with the model's states at every token."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from edge_conflayers.next_state.head import Floats

Ids = npt.NDArray[np.int64]
RowOf = Callable[[int], Floats]
"""A token's row of the embedding table or of the LM head: float32 [n_embd]."""

MOST_BYTES = 1 << 30  # of states; not tuned: 300,000 tokens of a width of 896


@dataclass(frozen=True)
class StatesOfText:
    """A text, or a part of one, and the states that its tokens were drawn from.

    Attributes:
        tokens: int64 [n].
        states: float16 [n + 1, 2 * n_embd]: row i are the hidden and the inner state that token i
            was drawn from; the last row, those after the last token.
    """

    tokens: Ids
    states: npt.NDArray[np.float16]


class TrainingData:
    """The newest texts, as many as a gigabyte holds.

    Args:
        n_embd: width of the model's hidden states.
        most_bytes: of states; what is older is forgotten.
    """

    def __init__(self, n_embd: int, *, most_bytes: int = MOST_BYTES) -> None:
        self.n_embd = n_embd
        self.written: Counter[int] = Counter()
        self._texts: deque[StatesOfText] = deque()
        self._n_tokens = 0
        self._most_tokens = max(1, most_bytes // (4 * n_embd))

    def __len__(self) -> int:
        """Tokens."""
        return self._n_tokens

    def add(self, tokens: Sequence[int], states: Sequence[Floats]) -> None:
        """Adds a text: its tokens, and one state more than these, as in ``StatesOfText``."""
        if not tokens:
            return
        self._texts.append(
            StatesOfText(np.array(tokens), np.stack(states).astype(np.float16, copy=False))
        )
        self._n_tokens += len(tokens)
        self.written.update(tokens)
        while self._n_tokens > self._most_tokens and len(self._texts) > 1:
            self._n_tokens -= len(self._texts.popleft().tokens)

    def followed(self, most: int) -> Iterator[tuple[Floats, int, int]]:
        """The states that a token was drawn from, the token, and the one after it, of the newest
        texts, at most so many."""
        pairs = (
            (text.states[i].astype(np.float32), int(text.tokens[i]), int(text.tokens[i + 1]))
            for text in reversed(self._texts)
            for i in range(len(text.tokens) - 1)
        )
        return islice(pairs, most)

    def features(self, embedding_of: RowOf) -> Features:
        """The texts as arrays to learn from.

        Args:
            embedding_of: the embedding table's.
        """
        return Features(tuple(self._texts), self.n_embd, embedding_of)


class Features:
    """Texts as scaled features: every state and embedding divided by its root mean square.

    A sample is a token: ``[h; g; e(y)]``, the states that it was drawn from and its embedding, and
    the states after it, ``[h'; g']``.

    Attributes:
        samples: int64 [n]: the samples' places, for ``inputs`` and ``targets``.
        state_scale: float32 [2 * n_embd], of ``[h; g]``.
        embedding_scale: float32 [n_embd].
    """

    def __init__(self, texts: Sequence[StatesOfText], n_embd: int, embedding_of: RowOf) -> None:
        self.n_embd = n_embd
        self.states = (
            np.concatenate([text.states for text in texts])
            if texts
            else np.zeros((0, 2 * n_embd), np.float16)
        )
        self.samples = _places(texts)
        tokens = np.concatenate([text.tokens for text in texts]) if texts else np.zeros(0, int)
        known, which = np.unique(tokens, return_inverse=True)
        self._which = np.zeros(len(self.states), dtype=np.int64)  # by place; row of _embeddings
        self._which[self.samples] = which
        embeddings = np.array([embedding_of(int(token)) for token in known], np.float32)
        embeddings = embeddings.reshape(-1, n_embd)
        self.embedding_scale = _root_mean_square(embeddings[which[:: _every(which)]])
        self.state_scale = _root_mean_square(self.states[:: _every(self.states)].astype(np.float32))
        self._embeddings = embeddings / self.embedding_scale

    def inputs(self, places: Ids) -> Floats:
        """float32 [n, 3 * n_embd]."""
        return np.concatenate([self._scaled(places), self._embeddings[self._which[places]]], axis=1)

    def targets(self, places: Ids) -> Floats:
        """float32 [n, 2 * n_embd]."""
        return self._scaled(places + 1)

    def _scaled(self, places: Ids) -> Floats:
        scaled: Floats = self.states[places] / self.state_scale
        return scaled

    def scaled_rows(self, rows: Floats) -> Floats:
        """Rows of the LM head, float32 [n, n_embd], for scaled hidden states."""
        return rows * self.state_scale[: self.n_embd]

    def unscaled(self, weights: Floats) -> Floats:
        """A head's W, of [h; g; e(y)] as they are.

        Args:
            weights: float32 [3 * n_embd, 2 * n_embd], which maps ``inputs`` to ``targets``.

        Returns:
            float32 [2 * n_embd, 3 * n_embd].
        """
        scale = np.concatenate([self.state_scale, self.embedding_scale])
        return np.ascontiguousarray(weights.T * self.state_scale[:, None] / scale)

    def scaled(self, weights: Floats) -> Floats:
        """The opposite of ``unscaled``."""
        scale = np.concatenate([self.state_scale, self.embedding_scale])
        return np.ascontiguousarray((weights * scale / self.state_scale[:, None]).T)


def _places(texts: Sequence[StatesOfText]) -> Ids:
    begin, places = 0, []
    for text in texts:
        places.append(np.arange(begin, begin + len(text.tokens)))
        begin += len(text.states)
    return np.concatenate(places) if places else np.zeros(0, dtype=np.int64)


def _every(rows: npt.NDArray[np.generic]) -> int:
    """The step that leaves some 16,000 rows."""
    return max(1, len(rows) >> 14)


def _root_mean_square(rows: Floats) -> Floats:
    """By column; a column of zeros counts as ones, so that it can be divided by."""
    if not len(rows):
        return np.ones(rows.shape[1], np.float32)
    scale: Floats = np.sqrt(np.square(rows).mean(axis=0))
    return np.where(scale > 1e-6 * scale.max(initial=0), scale, 1).astype(np.float32)
