"""Teaches exits by what the full model itself says: first in closed form, then by cross-entropy.

Each exit's map ``W`` starts as the ridge regression of the last hidden state on the residual stream
after its layer, and goes on by the cross-entropy of its distribution over the draft vocabulary to
the full model's, of the frozen model alone: no labels (DSSD, arXiv 2407.21082).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_conflayers.exits.taught_exits import Floats

_RIDGE = 300.0  # in tokens whose features say nothing; not tuned
_CHUNK = 1024  # tokens of one matrix product; not tuned
_BATCH = 600  # tokens; as for the next-state head, not tuned for exits
_PEAK_RATE = 6e-4  # of AdamW, on features of unit RMS; as for the next-state head
_WARM_UP = 40  # steps; likewise
_DECAY = 0.01  # of the weights, by AdamW; not tuned


@dataclass(frozen=True, eq=False)
class ExitSamples:
    """What the model's layers say at some tokens of its texts.

    Attributes:
        streams: float16 [exits, tokens, n_embd], the residual streams after the exits' layers,
            divided by their root mean square.
        states: float16 [tokens, n_embd], the last hidden states, as the LM head takes them.
        best: int32 [tokens], the full model's likeliest next tokens.
    """

    streams: npt.NDArray[np.float16]
    states: npt.NDArray[np.float16]
    best: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """Tokens."""
        return len(self.states)

    @property
    def n_exits(self) -> int:
        return len(self.streams)


@dataclass(frozen=True, eq=False)
class ExitMaps:
    """The weights of exits: see ``TaughtExits``."""

    norms: Floats
    weights: Floats

    def logits(self, samples: ExitSamples, rows: Floats, exit: int) -> Iterator[Floats]:
        """One exit's logits over the draft vocabulary, some tokens at a time."""
        for begin in range(0, len(samples), _CHUNK):
            features = samples.streams[exit, begin : begin + _CHUNK] * self.norms[exit]
            yield features @ self.weights[exit].T @ rows.T


def solve(samples: ExitSamples) -> ExitMaps:
    """The maps that predict the last hidden states best, in closed form."""
    n_exits, n, n_embd = samples.streams.shape
    norms = np.empty((n_exits, n_embd), dtype=np.float32)
    weights = np.empty((n_exits, n_embd, n_embd), dtype=np.float32)
    for k, stream in enumerate(samples.streams):
        inner = np.zeros((n_embd, n_embd), dtype=np.float32)  # sum(x x')
        cross = np.zeros((n_embd, n_embd), dtype=np.float32)  # sum(x h')
        for begin in range(0, n, _CHUNK):
            x = stream[begin : begin + _CHUNK].astype(np.float32)
            inner += x.T @ x
            cross += x.T @ samples.states[begin : begin + _CHUNK].astype(np.float32)
        squares = inner.diagonal()
        # Each feature on its own scale; one that is always zero gets no weight.
        norms[k] = 1 / np.sqrt(np.maximum(squares, 1e-12 * squares.max()) / n)
        inner *= norms[k][:, None] * norms[k] / n
        inner[np.diag_indices_from(inner)] += _RIDGE / n
        weights[k] = np.linalg.solve(inner, cross * norms[k][:, None] / n).T
    return ExitMaps(norms, weights)


def entropies_and_hits(
    maps: ExitMaps, samples: ExitSamples, rows: Floats, vocabulary: npt.NDArray[np.int32]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What exits say of tokens: the entropies of their distributions over the draft vocabulary, in
    nats, float32 [exits, tokens], and whether their likeliest token is the full model's, bool
    [exits, tokens]."""
    entropies = np.empty((samples.n_exits, len(samples)), dtype=np.float32)
    right = np.empty((samples.n_exits, len(samples)), dtype=bool)
    for k in range(samples.n_exits):
        begin = 0
        for logits in maps.logits(samples, rows, k):
            end = begin + len(logits)
            right[k, begin:end] = vocabulary[logits.argmax(-1)] == samples.best[begin:end]
            logits -= logits.max(-1, keepdims=True)
            parts = np.exp(logits)
            total = parts.sum(-1)
            entropies[k, begin:end] = np.log(total) - (parts * logits).sum(-1) / total
            begin = end
    return np.maximum(entropies, 0.0), right


def train(
    maps: ExitMaps,
    samples: ExitSamples,
    rows: Floats,
    *,
    passes: int,
    deadline: float = math.inf,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> ExitMaps:
    """Goes on from maps by cross-entropy, all exits at once.

    Args:
        maps: of ``solve``.
        samples: to learn from.
        rows: float32 [draft vocabulary, n_embd], of the LM head.
        passes: over the samples.
        deadline: by ``time.monotonic``, at which it ends; the rate then falls as fast as time goes.
        seed: of the order of the samples.
        on_progress: called after each batch with the share that is done.
    """
    norms, weights = maps.norms, maps.weights.copy()
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    random = np.random.default_rng(seed)
    steps = max(1, passes * (len(samples) // _BATCH))
    began = time.monotonic()
    step = 0
    for _ in range(passes):
        order = random.permutation(len(samples))
        for begin in range(0, len(order) - _BATCH + 1, _BATCH):
            done = max(step / steps, (time.monotonic() - began) / (deadline - began))
            if done >= 1:
                return ExitMaps(norms, weights)
            batch = np.sort(order[begin : begin + _BATCH])
            states = samples.states[batch].astype(np.float32)
            wanted = _softmax(states @ rows.T)
            step += 1
            rate = _PEAK_RATE * min(1.0, step / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
            for k in range(samples.n_exits):
                x = samples.streams[k, batch] * norms[k]
                error = _softmax(x @ weights[k].T @ rows.T)
                error -= wanted
                gradient = (error @ rows).T @ x / len(batch)
                _adam(weights[k], gradient, first[k], second[k], step, rate)
            on_progress(done)
    return ExitMaps(norms, weights)


def _softmax(logits: Floats) -> Floats:
    logits -= logits.max(-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    return logits


def _adam(
    weights: Floats, gradient: Floats, first: Floats, second: Floats, step: int, rate: float
) -> None:
    """One step of AdamW (arXiv 1711.05101), in place; ``first`` and ``second`` are its moments."""
    first += 0.1 * (gradient - first)
    second += 0.02 * (gradient * gradient - second)
    change = first / (1 - 0.9**step)
    change /= np.sqrt(second / (1 - 0.98**step)) + 1e-8
    weights -= rate * (change + _DECAY * weights)
