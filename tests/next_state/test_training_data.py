"""What a head learns from."""

from __future__ import annotations

import numpy as np
import pytest
from head_worlds import WIDTH, linear_world
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.next_state.training_data import TrainingData

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def numbered(lengths: list[int], most_bytes: int = 1 << 20) -> TrainingData:
    """Texts whose tokens and states are numbered on: the state before token i is 2 * i."""
    data, i = TrainingData(WIDTH, most_bytes=most_bytes), 0
    for length in lengths:
        states = [np.full(2 * WIDTH, 2 * (i + j), np.float32) for j in range(length + 1)]
        data.add(range(i, i + length), states)
        i += length
    return data


def embedding(token: int) -> np.ndarray:
    return np.full(WIDTH, token + 1, np.float32)


@settings(deadline=None)
@given(LENGTHS)
def test_a_sample_is_a_token_between_two_states(lengths: list[int]) -> None:
    data = numbered(lengths)
    features = data.features(embedding)
    assert len(data) == len(features.samples) == sum(lengths)
    before = features.inputs(features.samples)
    state = before[:, : 2 * WIDTH] * features.state_scale
    token = before[:, 2 * WIDTH :] * features.embedding_scale
    after = features.targets(features.samples) * features.state_scale
    tokens = np.arange(sum(lengths))[:, None]
    assert state == pytest.approx(np.broadcast_to(2 * tokens, state.shape), abs=1e-3)
    assert token == pytest.approx(np.broadcast_to(tokens + 1, token.shape), rel=1e-5)
    assert after == pytest.approx(np.broadcast_to(2 * tokens + 2, after.shape), abs=1e-3)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40))
def test_what_is_older_is_forgotten(lengths: list[int], most: int) -> None:
    data = numbered(lengths, most_bytes=4 * WIDTH * most)
    kept: list[int] = []
    for length in reversed(lengths):
        if kept and sum(kept) + length > most:
            break
        kept.append(length)
    assert len(data) == sum(kept)
    first = data.features(embedding).targets(np.array([0]))
    assert np.isfinite(first).all() and data.written.total() == sum(lengths)


@settings(deadline=None)
@given(LENGTHS)
def test_pairs_are_within_a_text(lengths: list[int]) -> None:
    pairs = list(numbered(lengths).followed(100))
    assert len(pairs) == sum(length - 1 for length in lengths)
    assert all(after == token + 1 and state[0] == 2 * token for state, token, after in pairs)


def test_scaling_and_unscaling_are_opposites() -> None:
    data, truth, embedding_of = linear_world(200, scale=7.0)
    features = data.features(embedding_of)
    weights = truth.astype(np.float32)
    assert features.unscaled(features.scaled(weights)) == pytest.approx(weights, rel=1e-4)
    x, y = features.inputs(features.samples), features.targets(features.samples)
    assert x @ features.scaled(weights) == pytest.approx(y, abs=0.02)  # half precision


def test_no_texts_are_no_samples() -> None:
    features = TrainingData(WIDTH).features(embedding)
    assert len(features.samples) == 0 and len(features.inputs(features.samples)) == 0
