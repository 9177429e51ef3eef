"""A head taught by cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
from head_worlds import VOCABULARY, WIDTH, linear_world

from edge_conflayers.next_state import cross_entropy
from edge_conflayers.next_state.cross_entropy import CrossEntropy, Interrupted, foreseen, train
from edge_conflayers.next_state.regression import ridge
from edge_conflayers.next_state.training_data import Features, TrainingData


def rows(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(30, WIDTH)).astype(np.float32)


def curved_world(n: int, seed: int) -> Features:
    """The least squares of its states are not the best guesses of its tokens: half of the width
    says nothing about them but is loud."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(2 * WIDTH, 3 * WIDTH))
    embeddings = rng.normal(size=(VOCABULARY, WIDTH))
    rng = np.random.default_rng(seed)
    data = TrainingData(WIDTH)
    for _ in range(n):
        state, token = rng.normal(size=2 * WIDTH), int(rng.integers(VOCABULARY))
        after = np.tanh(mix @ np.concatenate([state, embeddings[token]]))
        data.add([token], [each.astype(np.float32) for each in (state, after)])
    return data.features(lambda token: embeddings[token].astype(np.float32))


def loss(features: Features, weights: np.ndarray, batch: np.ndarray) -> float:
    """The definition, in double precision."""
    x, target = features.inputs(batch).astype(float), features.targets(batch).astype(float)
    lm_head = rows() * features.state_scale[:WIDTH]
    predicted = x @ features.scaled(weights).astype(float)

    def log_softmax(states: np.ndarray) -> np.ndarray:
        logits = states[:, :WIDTH] @ lm_head.T
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    p, log_q = np.exp(log_softmax(target)), log_softmax(predicted)
    off = np.abs(predicted - target)
    huber = np.where(off < 1, off**2 / 2, off - 0.5).mean()
    return float(-(p * log_q).sum(axis=1).mean() + 0.2 * huber)


def test_the_first_step_goes_down_the_gradient() -> None:
    """Of the definition, by differences: AdamW's first step has the gradient's signs."""
    features = curved_world(300, 2)
    start = features.unscaled(ridge(features))
    training, batch = CrossEntropy(features, rows(), start), features.samples[:100]
    scaled = features.scaled(start)
    training.step(batch, 0.0)
    moved = features.scaled(training.weights) - scaled
    checked = 0
    for i, j in [(0, 0), (5, 3), (20, 7), (35, 11), (30, 20), (2, 15)]:

        def at(change: float, i: int = i, j: int = j) -> float:
            weights = scaled.copy()
            weights[i, j] += change
            return loss(features, features.unscaled(weights), batch)

        slope = (at(1e-2) - at(-1e-2)) / 2e-2
        if abs(slope) > 1e-3:
            checked += 1
            assert np.sign(moved[i, j]) == -np.sign(slope)
    assert checked >= 3


def test_training_foresees_more_than_closed_form() -> None:
    features, held_out = curved_world(4000, 2), curved_world(600, 9)
    start = features.unscaled(ridge(features))
    weights, better = train(features, held_out, rows(), start, seconds=60)
    before = foreseen(held_out, rows(), start)
    assert better.loss < before.loss and better == foreseen(held_out, rows(), weights)
    assert 0 <= better.first <= better.among <= 1


def test_a_head_that_knows_everything_is_kept() -> None:
    data, truth, embedding_of = linear_world(2000)
    features = data.features(embedding_of)
    start = truth.astype(np.float32)
    _, best = train(features, features, rows(), start, seconds=60)
    assert best.loss <= foreseen(features, rows(), start).loss
    assert best.first > 0.99


def test_time_ends_a_training() -> None:
    features = curved_world(2000, 2)
    start = features.unscaled(ridge(features))
    now = iter(range(1000))
    steps: list[float] = []
    train(
        *(features, features, rows(), start),
        seconds=5.0,
        on_progress=lambda progress: steps.append(progress.done),
        clock=lambda: float(next(now)),
    )
    assert len(steps) == 5 and steps[-1] == 1


def test_an_interrupt_gives_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "_TESTS", 1000)  # one after each step
    features = curved_world(3000, 2)
    start = features.unscaled(ridge(features))
    seen: list[cross_entropy.Foreseen] = []

    def interrupting(progress: cross_entropy.Progress) -> None:
        seen.append(progress.foreseen)
        if len(seen) == 8:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as interrupted:
        train(features, features, rows(), start, seconds=60, on_progress=interrupting)
    assert interrupted.value.foreseen.loss == min(each.loss for each in seen)
    assert foreseen(features, rows(), interrupted.value.weights) == interrupted.value.foreseen
