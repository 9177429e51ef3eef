"""Fits by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.fitting.adamw import AdamW
from edge_conflayers.fitting.ridge import RidgeSums
from edge_conflayers.fitting.softmax import softmax


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(1.0, 1000.0), st.integers(1, 4))
def test_a_ridge_is_its_definition(seed: int, ridge: float, parts: int) -> None:
    """However the samples come, and whatever the inputs' scales."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-2, 2, 6)
    x, y = rng.normal(size=(80, 6)) * scales, rng.normal(size=(80, 3))
    sums = RidgeSums(6, 3)
    for part in np.array_split(np.arange(80), parts):
        sums.add(x[part].astype(np.float32), y[part].astype(np.float32))
    inner = x.T @ x
    wanted = np.linalg.solve(inner + ridge / 80 * np.diag(inner.diagonal()), x.T @ y)
    assert sums.solve(ridge) * scales[:, None] == pytest.approx(wanted * scales[:, None], abs=1e-3)
    assert sums.root_mean_squares == pytest.approx(np.sqrt((x**2).mean(axis=0)), rel=1e-4)
    assert len(sums) == 80


def test_no_samples_fit_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        RidgeSums(2, 1).solve(1.0)


def test_adamw_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=5).astype(np.float32)
    wanted, mean, square = weights.astype(float), np.zeros(5), np.zeros(5)
    optimizer = AdamW(weights, decay=0.05)
    for step in range(1, 20):
        gradient, rate = rng.normal(size=5), 0.01 * step
        optimizer.step(gradient.astype(np.float32), rate)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.98 * square + 0.02 * gradient**2
        change = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.98**step)) + 1e-8)
        wanted -= rate * (change + 0.05 * wanted)
    assert optimizer.steps == 19
    assert weights == pytest.approx(wanted, abs=1e-4)


def test_softmax_takes_any_logits() -> None:
    logits = np.array([[1e4, 1e4, -1e4], [0.0, 0.0, np.log(2)]], dtype=np.float32)
    assert softmax(logits) == pytest.approx(np.array([[0.5, 0.5, 0], [0.25, 0.25, 0.5]]), abs=1e-6)
