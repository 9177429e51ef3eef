"""The closed form that teaches a bridge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.bridges import regression
from edge_conflayers.bridges.regression import BridgeRegression, across, features, rms


def streams(weights: np.ndarray, tokens: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A text whose block does what the map says, token by token."""
    entering = rng.normal(size=(tokens, len(weights))).astype(np.float32)
    entering *= rng.uniform(0.5, 20, size=(tokens, 1)).astype(np.float32)
    leaving = [entering[0]]
    for i in range(1, tokens):
        row = slice(i, i + 1)
        leaving.append(across(weights, entering[row], entering[i - 1 : i], leaving[-1][None])[0])
    return entering, np.stack(leaving)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_it_finds_a_map_that_is_there(n_embd: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = (0.3 * rng.normal(size=(n_embd, 3 * n_embd + 1))).astype(np.float32)
    sums = BridgeRegression(n_embd)
    for _ in range(3):
        entering, leaving = streams(weights, 700, rng)
        sums.add(entering, leaving)
    assert len(sums) == 3 * 699
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "_RIDGE", 0.01)
        found = sums.solve(1, 3)
    assert (found.begin, found.end) == (1, 3)
    entering, leaving = streams(weights, 200, rng)
    said = across(found.weights, entering[1:], entering[:-1], leaving[:-1])
    error = np.abs(said - leaving[1:]) / rms(entering[1:])
    assert error.max() < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.floats(1e-3, 1e3), st.integers(0, 10**6))
def test_it_does_not_go_by_the_size_of_states(n_embd: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, 5, n_embd)).astype(np.float32) + np.float32(0.1)
    scaled = features(*(rows * np.float32(size)))
    assert scaled == pytest.approx(features(*rows), abs=1e-3)
    assert np.array_equal(scaled[:, -1], np.ones(5))


def test_texts_are_added_in_any_pieces() -> None:
    """The order does not matter, and no token follows one of another text."""
    rng = np.random.default_rng(2)
    texts = [rng.normal(size=(2, n, 4)).astype(np.float32) for n in (2, 700, 1, 40)]
    one, other = BridgeRegression(4), BridgeRegression(4)
    for entering, leaving in texts:
        one.add(entering, leaving)
    for entering, leaving in reversed(texts):
        other.add(entering, leaving)
    assert len(one) == len(other) == 1 + 699 + 0 + 39
    assert one.solve(1, 2).weights == pytest.approx(other.solve(1, 2).weights, abs=1e-4)


def test_nothing_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="teach nothing"):
        BridgeRegression(4).solve(1, 2)
