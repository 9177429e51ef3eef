"""The next-state head and its file."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.errors import BadInput
from edge_conflayers.next_state.head import NextStateHead

WIDTH, VOCABULARY = 12, 50


def some_head(seed: int = 3, width: int = WIDTH) -> NextStateHead:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(2 * width, 3 * width)).astype(np.float32)
    return NextStateHead(weights, Counter(rng.integers(0, VOCABULARY, 2000).tolist()))


@settings(deadline=None)
@given(st.integers(0, 99), st.sampled_from([8, 12, 32, 33, 64]), st.floats(-3, 3))
def test_its_file_is_exact_to_8_bits(seed: int, width: int, power: float) -> None:
    """Of each block of weights; and what was read is written again to the bit."""
    head = some_head(seed, width)
    scales = 10.0 ** np.random.default_rng(seed).normal(0, abs(power), (2 * width, 1))
    head = replace(head, weights=(head.weights * scales).astype(np.float32))
    again = NextStateHead.from_bytes(head.to_bytes(), width, VOCABULARY)
    assert again.weights.dtype == np.float32
    largest = np.abs(head.weights).max(axis=1, keepdims=True)
    assert (np.abs(again.weights - head.weights) <= largest / 127).all()
    once_more = NextStateHead.from_bytes(again.to_bytes(), width, VOCABULARY)
    assert once_more.weights == pytest.approx(again.weights, rel=1e-3)


def test_weights_of_zeros_stay_zeros() -> None:
    head = replace(some_head(), weights=np.zeros((2 * WIDTH, 3 * WIDTH), np.float32))
    assert not NextStateHead.from_bytes(head.to_bytes(), WIDTH, VOCABULARY).weights.any()


def test_its_file_round_trips() -> None:
    head = replace(some_head(), chances=((4.0, 1.0), (0.0, 0.0)))
    again = NextStateHead.from_bytes(head.to_bytes(), WIDTH, VOCABULARY)
    assert again.written == head.written and again.chances == head.chances


def test_a_damaged_file_is_refused() -> None:
    data = some_head().to_bytes()
    for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(BadInput, match="run `tune` anew"):
            NextStateHead.from_bytes(data[:cut], WIDTH, VOCABULARY)
    wrong = bytearray(data)
    wrong[len(data) // 4] ^= 0xFF
    with pytest.raises(BadInput):
        NextStateHead.from_bytes(bytes(wrong), WIDTH, VOCABULARY)


@pytest.mark.parametrize("chances", [((1.0, 2.0),), ((float("nan"), 0.0),), ((5.0, -1.0),)])
def test_chances_that_cannot_be_are_refused(chances: tuple[tuple[float, float], ...]) -> None:
    data = replace(some_head(), chances=chances).to_bytes()
    with pytest.raises(BadInput, match="run `tune` anew"):
        NextStateHead.from_bytes(data, WIDTH, VOCABULARY)


@pytest.mark.parametrize(
    "weights, written, sizes",
    [
        (np.ones((2 * WIDTH, 3 * WIDTH)), {1: 1}, (WIDTH + 1, VOCABULARY)),
        (np.ones((2 * WIDTH, 2 * WIDTH)), {1: 1}, (WIDTH, VOCABULARY)),
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


def test_weights_that_are_no_numbers_are_refused() -> None:
    with np.load(io.BytesIO(some_head().to_bytes())) as arrays:
        parts = dict(arrays)
    parts["scales"] = np.full_like(parts["scales"], np.nan)
    file = io.BytesIO()
    np.savez(file, **parts)
    with pytest.raises(BadInput, match="run `tune` anew"):
        NextStateHead.from_bytes(file.getvalue(), WIDTH, VOCABULARY)


@pytest.mark.parametrize("rows", [WIDTH, 2 * WIDTH])
def test_scales_of_other_weights_are_refused(rows: int) -> None:
    with np.load(io.BytesIO(some_head().to_bytes())) as arrays:
        parts = dict(arrays)
    parts["scales"] = np.ones((rows, 5), np.float32)
    file = io.BytesIO()
    np.savez(file, **parts)
    with pytest.raises(BadInput, match="run `tune` anew"):
        NextStateHead.from_bytes(file.getvalue(), WIDTH, VOCABULARY)


@pytest.mark.parametrize("rows", [WIDTH, 2 * WIDTH])
def test_an_earlier_versions_head_is_refused(rows: int) -> None:
    file = io.BytesIO()
    weights = np.ones((rows, 3 * WIDTH), dtype=np.float16)
    one = np.ones(1, dtype=np.int32)
    np.savez(file, weights=weights, tokens=one, counts=one, chances=np.zeros((0, 2)))
    with pytest.raises(BadInput, match="an earlier version's; run `tune` anew"):
        NextStateHead.from_bytes(file.getvalue(), WIDTH, VOCABULARY)
