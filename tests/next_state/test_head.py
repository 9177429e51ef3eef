"""The next-state head: what it learns, and its file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edge_conflayers.errors import BadInput
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.next_state.regression import HeadRegression

WIDTH, VOCABULARY = 12, 50


def taught(n: int, noise: float = 0.0, scale: float = 1.0) -> tuple[NextStateHead, np.ndarray]:
    """A head taught by a linear world, and that world's matrix, for embeddings at this scale."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(2 * WIDTH, 3 * WIDTH))
    regression = HeadRegression(WIDTH)
    for _ in range(n):
        state, embedding = rng.normal(size=2 * WIDTH), rng.normal(size=WIDTH)
        after = truth @ np.concatenate([state, embedding]) + noise * rng.normal(size=2 * WIDTH)
        vectors = [each.astype(np.float32) for each in (state, scale * embedding, after)]
        regression.add(vectors[0], int(rng.integers(VOCABULARY)), vectors[1], vectors[2])
    assert len(regression) == n
    truth[:, 2 * WIDTH :] /= scale
    return regression.solve(), truth


def test_a_linear_world_is_learned() -> None:
    head, truth = taught(20_000)
    assert head.weights.dtype == np.float32
    # The ridge takes 800 parts of 20,800.
    assert head.weights == pytest.approx(truth * 20_000 / 20_800, abs=0.03)
    assert head.written.total() == 20_000


def test_more_text_teaches_more() -> None:
    errors = []
    for n in (1024, 4096, 16_384):
        head, truth = taught(n, noise=1.0)
        errors.append(np.abs(head.weights - truth).mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 3


@pytest.mark.parametrize("scale", [1e-3, 64.0])
def test_features_count_alike_whatever_their_scale(scale: float) -> None:
    one, scaled = taught(2048)[0].weights, taught(2048, scale=scale)[0].weights
    cut = 2 * WIDTH
    assert scaled[:, :cut] == pytest.approx(one[:, :cut], abs=1e-3)
    assert scale * scaled[:, cut:] == pytest.approx(one[:, cut:], abs=1e-3)


def test_a_feature_that_is_always_zero_gets_no_weight() -> None:
    rng = np.random.default_rng(0)
    regression = HeadRegression(WIDTH)
    for _ in range(1024):
        state = rng.normal(size=2 * WIDTH).astype(np.float32)
        state[3] = 0
        regression.add(state, 1, state[:WIDTH][::-1], state)
    weights = regression.solve().weights
    assert np.isfinite(weights).all() and not weights[:, 3].any()


def test_hardly_any_text_teaches_nothing() -> None:
    regression = HeadRegression(WIDTH)
    assert not regression.enough
    with pytest.raises(ValueError, match="0 tokens teach nothing"):
        regression.solve()


def test_its_file_round_trips() -> None:
    head, _ = taught(2000)
    head = replace(head, chances=((4.0, 1.0), (0.0, 0.0)))
    again = NextStateHead.from_bytes(head.to_bytes(), WIDTH, VOCABULARY)
    assert again.weights == pytest.approx(head.weights, rel=1e-3, abs=1e-5)
    assert again.written == head.written and again.chances == head.chances


def test_a_damaged_file_is_refused() -> None:
    data = taught(2000)[0].to_bytes()
    for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(BadInput, match="run `tune` anew"):
            NextStateHead.from_bytes(data[:cut], WIDTH, VOCABULARY)
    wrong = bytearray(data)
    wrong[len(data) // 4] ^= 0xFF
    with pytest.raises(BadInput):
        NextStateHead.from_bytes(bytes(wrong), WIDTH, VOCABULARY)


@pytest.mark.parametrize("chances", [((1.0, 2.0),), ((float("nan"), 0.0),), ((5.0, -1.0),)])
def test_chances_that_cannot_be_are_refused(chances: tuple[tuple[float, float], ...]) -> None:
    data = replace(taught(2000)[0], chances=chances).to_bytes()
    with pytest.raises(BadInput, match="run `tune` anew"):
        NextStateHead.from_bytes(data, WIDTH, VOCABULARY)


@pytest.mark.parametrize(
    "weights, written, sizes",
    [
        (np.ones((2 * WIDTH, 3 * WIDTH)), {1: 1}, (WIDTH + 1, VOCABULARY)),
        (np.ones((2 * WIDTH, 2 * WIDTH)), {1: 1}, (WIDTH, VOCABULARY)),
        (np.full((2 * WIDTH, 3 * WIDTH), np.nan), {1: 1}, (WIDTH, VOCABULARY)),
        (np.ones((2 * WIDTH, 3 * WIDTH)), {VOCABULARY: 1}, (WIDTH, VOCABULARY)),
        (np.ones((2 * WIDTH, 3 * WIDTH)), {1: 0}, (WIDTH, VOCABULARY)),
    ],
)
def test_a_head_of_another_model_is_refused(
    weights: np.ndarray, written: dict[int, int], sizes: tuple[int, int]
) -> None:
    data = NextStateHead(weights.astype(np.float32), Counter(written)).to_bytes()
    with pytest.raises(BadInput, match="another model"):
        NextStateHead.from_bytes(data, *sizes)


def test_an_earlier_versions_head_is_refused() -> None:
    data = NextStateHead(np.ones((WIDTH, 3 * WIDTH), dtype=np.float32), Counter({1: 1})).to_bytes()
    with pytest.raises(BadInput, match="an earlier version's; run `tune` anew"):
        NextStateHead.from_bytes(data, WIDTH, VOCABULARY)
