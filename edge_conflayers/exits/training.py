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
from edge_conflayers.fitting.adamw import AdamW
from edge_conflayers.fitting.ridge import RidgeSums
from edge_conflayers.fitting.softmax import softmax

_RIDGE = 300.0  # in tokens whose features say nothing; not tuned
_CHUNK = 1024  # tokens of one matrix product; not tuned
_BATCH = 600  # tokens; as for the next-state head, not tuned for exits
_PEAK_RATE = 6e-4  # of AdamW, on features of unit RMS; as for the next-state head
_WARM_UP = 40  # steps; likewise
_DECAY = 0.01  # of the weights; not tuned


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

    def logits(self, samples: ExitSamples, rows: Floats, exit: int, part: slice) -> Floats:
        """One exit's logits over the draft vocabulary at some of the tokens."""
        features = samples.streams[exit, part] * self.norms[exit]
        logits: Floats = features @ self.weights[exit].T @ rows.T
        return logits


def solve(samples: ExitSamples) -> ExitMaps:
    """The maps that predict the last hidden states best, in closed form."""
    n_exits, n, n_embd = samples.streams.shape
    norms = np.empty((n_exits, n_embd), dtype=np.float32)
    weights = np.empty((n_exits, n_embd, n_embd), dtype=np.float32)
    for k, stream in enumerate(samples.streams):
        sums = RidgeSums(n_embd, n_embd)
        for part in _chunks(n):
            sums.add(stream[part].astype(np.float32), samples.states[part].astype(np.float32))
        norms[k] = 1 / sums.root_mean_squares
        weights[k] = (sums.solve(_RIDGE) / norms[k][:, None]).T
    return ExitMaps(norms, weights)


def judge(
    maps: ExitMaps, samples: ExitSamples, rows: Floats, vocabulary: npt.NDArray[np.int32]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What exits say of tokens.

    Args:
        rows: float32 [draft vocabulary, n_embd], of the LM head.
        vocabulary: int32, the tokens of these rows.

    Returns:
        The entropies of their distributions over the draft vocabulary, in nats, float32 [exits,
        tokens], and whether their likeliest token is the full model's, bool [exits, tokens].
    """
    entropies = np.empty((samples.n_exits, len(samples)), dtype=np.float32)
    right = np.empty((samples.n_exits, len(samples)), dtype=bool)
    for part in _chunks(len(samples)):
        for k in range(samples.n_exits):
            logits = maps.logits(samples, rows, k, part)
            right[k, part] = vocabulary[logits.argmax(-1)] == samples.best[part]
            logits -= logits.max(-1, keepdims=True)
            parts = np.exp(logits)
            total = parts.sum(-1)
            entropies[k, part] = np.log(total) - (parts * logits).sum(-1) / total
    return np.maximum(entropies, 0.0), right


def train(
    maps: ExitMaps,
    samples: ExitSamples,
    held_out: ExitSamples,
    rows: Floats,
    *,
    passes: int,
    deadline: float = math.inf,
    seed: int = 0,
    on_pass: Callable[[int], None] = lambda done: None,
) -> ExitMaps:
    """Goes on from maps by cross-entropy, all exits at once. A KeyboardInterrupt ends it.

    Args:
        maps: of ``solve``.
        samples: to learn from.
        held_out: say after each pass which of an exit's maps so far is best, and is kept.
        rows: float32 [draft vocabulary, n_embd], of the LM head.
        passes: over the samples.
        deadline: by ``time.monotonic``, at which it ends; the rate then falls as fast as time goes.
        seed: of the order of the samples.
        on_pass: called after each pass with how many there were.
    """
    weights = maps.weights.copy()
    best, losses = maps.weights.copy(), _losses(maps, held_out, rows)
    optimizers = [AdamW(of_exit, _DECAY) for of_exit in weights]
    random = np.random.default_rng(seed)
    began = time.monotonic()
    steps = max(1, passes * (len(samples) // _BATCH))
    step = 0
    ended = len(samples) < _BATCH
    for number in range(1, passes + 1):
        if ended:
            break
        order = random.permutation(len(samples))
        try:
            for begin in range(0, len(order) - _BATCH + 1, _BATCH):
                now = time.monotonic()
                if ended := now >= deadline:
                    break
                done = max(step / steps, (now - began) / (deadline - began))
                step += 1
                rate = _PEAK_RATE * min(1.0, step / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
                batch = np.sort(order[begin : begin + _BATCH])
                wanted = softmax(samples.states[batch].astype(np.float32) @ rows.T)
                for k in range(samples.n_exits):
                    x = samples.streams[k, batch] * maps.norms[k]
                    error = softmax(x @ weights[k].T @ rows.T) - wanted
                    gradient = (error @ rows).T @ x / len(batch)
                    optimizers[k].step(gradient, rate)
        except KeyboardInterrupt:
            ended = True
        found = _losses(ExitMaps(maps.norms, weights), held_out, rows)
        better = found < losses
        best[better], losses[better] = weights[better], found[better]
        on_pass(number)
    return ExitMaps(maps.norms, best)


def _losses(maps: ExitMaps, samples: ExitSamples, rows: Floats) -> npt.NDArray[np.float64]:
    """Each exit's cross-entropy to the full model's distribution, in nats a token: [exits]."""
    sums = np.zeros(samples.n_exits)
    for part in _chunks(len(samples)):
        wanted = softmax(samples.states[part].astype(np.float32) @ rows.T)
        for k in range(samples.n_exits):
            said = softmax(maps.logits(samples, rows, k, part))
            sums[k] -= float((wanted * np.log(said + 1e-12)).sum())
    return sums / max(1, len(samples))


def _chunks(n: int) -> Iterator[slice]:
    return (slice(begin, min(n, begin + _CHUNK)) for begin in range(0, n, _CHUNK))
