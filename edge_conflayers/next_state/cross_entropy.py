"""Teaches a next-state head by cross-entropy to the model's own distribution.

The squared error of a regression weighs all of a state alike; what drafts need is the token that
the LM head makes of it. So the loss of a sample is

    - sum over v of p(v) log q(v)  +  s * mean of huber([h'; g'] predicted - [h'; g']),

where p and q are the softmax, over the draft vocabulary, of the LM head's logits of the true and of
the predicted hidden state: the next feature and the next token, as EAGLE has it (arXiv 2401.15077).
It is minimised by AdamW. Over the ridge regression: first guess right 43 to 60 %, ``auto`` 1.45 to
1.63 over plain (0.5B, 99,000 tokens, 26 Spec-Bench prompts, 2026-11-28).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge_conflayers.fitting.adamw import AdamW
from edge_conflayers.fitting.softmax import softmax
from edge_conflayers.next_state.head import Floats
from edge_conflayers.next_state.training_data import Features, Ids

PEAK_RATE = 6e-4
"""AdamW's highest rate, of features of a root mean square of 1; with 3e-4 first guesses were as
often right, with 1e-3 less often (0.5B, 23,000 tokens)."""

_STATES = 0.2  # s; 1.0 was as good
_BATCH = 600  # samples of one step
_FINAL_RATE = 0.015  # of the peak
_WARM_UP = 40  # steps; not tuned
_DECAY = 0.05  # of the weights
_CHUNK = 1024  # samples of one product in a test; not tuned
_GUESSES = 4


_PASSES = 3.0  # over the samples; 1.5 and 5 were not better
_TESTS = 6  # in a training; not tuned
_PATIENCE = 2  # tests without a better one, after which it ends; not tuned


@dataclass(frozen=True)
class Foreseen:
    """How well a head foresees the tokens of texts.

    Attributes:
        loss: cross-entropy to the model's distribution over the draft vocabulary, in nats.
        first, among: share of the model's likeliest tokens that are the head's first guess, and
            among its first four.
    """

    loss: float
    first: float
    among: float


@dataclass(frozen=True)
class Progress:
    """How far a training is: the share that is done, and the last test."""

    done: float
    foreseen: Foreseen


def train(
    features: Features,
    held_out: Features,
    rows: Floats,
    start: Floats,
    *,
    seconds: float,
    peak_rate: float = PEAK_RATE,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Floats, Foreseen]:
    """Trains a head until it is no longer getting better or time is over.

    Args:
        features: of the texts to learn from; at least one sample.
        held_out: of other texts, which say how good it is; at least one sample.
        rows: float32 [n, n_embd], the LM head's rows of the draft vocabulary.
        start: float32 [2 * n_embd, 3 * n_embd], the weights to start from.
        seconds: for training.
        peak_rate: AdamW's, of features of a root mean square of 1.
        on_progress: called after every step; a KeyboardInterrupt ends the training.
        clock: in seconds.

    Returns:
        The best weights, of the shape of ``start``, and how good they are; ``start`` if no step
        has made them better.
    """
    began = clock()
    best = last = start, foreseen(held_out, rows, start)
    training = CrossEntropy(features, rows, start, peak_rate=peak_rate)
    steps = training.steps_of(_PASSES)
    worse = 0
    try:
        for step, batch in enumerate(training.batches(), start=1):
            training.step(batch, done := max(step / steps, (clock() - began) / seconds))
            if done >= 1 or step % max(1, steps // _TESTS) == 0:
                last = training.weights, foreseen(held_out, rows, training.weights)
                worse = 0 if last[1].loss < best[1].loss else worse + 1
                best = best if worse else last
            on_progress(Progress(min(done, 1), last[1]))
            if done >= 1 or worse >= _PATIENCE:
                break
    except KeyboardInterrupt:
        raise Interrupted(*best) from None
    return best


def foreseen(features: Features, rows: Floats, weights: Floats) -> Foreseen:
    """Tests a head.

    Args:
        features: of the texts to test it with; at least one sample.
        rows: float32 [n, n_embd], the LM head's rows of the draft vocabulary.
        weights: float32 [2 * n_embd, 3 * n_embd].
    """
    scaled, rows = features.scaled(weights), features.scaled_rows(rows)
    loss = first = among = 0.0
    for begin in range(0, len(features.samples), _CHUNK):
        places = features.samples[begin : begin + _CHUNK]
        p = _distribution(features.targets(places), rows)
        q = _distribution(features.inputs(places) @ scaled, rows)
        likeliest = p.argmax(axis=1)[:, None]
        loss -= float((p * np.log(q + 1e-9)).sum())
        first += float((q.argmax(axis=1)[:, None] == likeliest).sum())
        among += float((np.argpartition(-q, _GUESSES, axis=1)[:, :_GUESSES] == likeliest).sum())
    n = len(features.samples)
    return Foreseen(loss / n, first / n, among / n)


class CrossEntropy:
    """One training.

    Args:
        features: at least one sample.
        rows: float32 [n, n_embd], the LM head's rows of the draft vocabulary.
        start: float32 [2 * n_embd, 3 * n_embd].
        peak_rate: AdamW's.
        seed: of the order of samples.
    """

    def __init__(
        self,
        features: Features,
        rows: Floats,
        start: Floats,
        *,
        peak_rate: float = PEAK_RATE,
        seed: int = 0,
    ) -> None:
        self._peak_rate = peak_rate
        self._features = features
        self._rows = features.scaled_rows(rows)
        self._scaled = features.scaled(start)
        self._random = np.random.default_rng(seed)
        self._optimizer = AdamW(self._scaled, _DECAY)

    @property
    def weights(self) -> Floats:
        """float32 [2 * n_embd, 3 * n_embd]."""
        return self._features.unscaled(self._scaled)

    def steps_of(self, passes: float) -> int:
        """Steps of so many passes over the samples."""
        return max(1, round(passes * len(self._features.samples) / _BATCH))

    def batches(self) -> Iterator[Ids]:
        """Samples in random order, again and again."""
        left = self._features.samples[:0]
        while True:
            if len(left) < _BATCH:
                left = np.concatenate([left, self._random.permutation(self._features.samples)])
            batch, left = left[:_BATCH], left[_BATCH:]
            yield batch

    def step(self, batch: Ids, done: float) -> None:
        """Takes one step.

        Args:
            batch: samples.
            done: share of the training that is over; the rate falls by a cosine.
        """
        x, target = self._features.inputs(batch), self._features.targets(batch)
        predicted = x @ self._scaled
        slope = np.clip(predicted - target, -1, 1)
        slope *= _STATES / slope.size
        of_logits = _distribution(predicted, self._rows) - _distribution(target, self._rows)
        of_logits /= len(batch)
        slope[:, : self._features.n_embd] += of_logits @ self._rows
        self._descend(x.T @ slope, done)

    def _descend(self, gradient: Floats, done: float) -> None:
        norm = float(np.linalg.norm(gradient))
        if norm > 1:
            gradient /= norm
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))
        rate = self._peak_rate * (_FINAL_RATE + (1 - _FINAL_RATE) * cosine)
        warm = min(1.0, (self._optimizer.steps + 1) / _WARM_UP)
        self._optimizer.step(gradient, rate * warm)


class Interrupted(KeyboardInterrupt):
    """A training was interrupted.

    Attributes:
        weights, foreseen: the best so far, as ``train`` returns them.
    """

    def __init__(self, weights: Floats, foreseen: Foreseen) -> None:
        super().__init__()
        self.weights = weights
        self.foreseen = foreseen


def _distribution(states: Floats, rows: Floats) -> Floats:
    """Of the next token, by scaled states and rows."""
    return softmax(states[:, : rows.shape[1]] @ rows.T)
