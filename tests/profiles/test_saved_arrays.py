"""Arrays in files."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.profiles.saved_arrays import (
    count_arrays,
    counter_of,
    from_8_bits,
    to_8_bits,
)


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 100), st.floats(0, 3))
def test_8_bits_are_exact_to_a_step_of_each_group(
    seed: int, rows: int, width: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, width)) * 10.0 ** rng.normal(0, spread, (rows, width))
    weights = weights.astype(np.float32)
    numbers, scales = to_8_bits(weights)
    assert numbers.shape == weights.shape and np.abs(numbers.astype(int)).max() <= 127
    again = from_8_bits(numbers, scales)
    for begin in range(0, width, 32):
        group = slice(begin, begin + 32)
        step = np.abs(weights[:, group]).max(axis=1, keepdims=True) / 127
        assert (np.abs(again[:, group] - weights[:, group]) <= 0.501 * step).all()


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2, 1)])
def test_scales_of_other_weights_are_refused(shape: tuple[int, int]) -> None:
    numbers, _ = to_8_bits(np.ones((2, 40), np.float32))
    with pytest.raises(ValueError, match="other weights"):
        from_8_bits(numbers, np.ones(shape, np.float32))


def test_counts_come_back() -> None:
    counts = Counter({3: 7, 0: 1})
    assert counter_of(*count_arrays(counts), n_vocab=4) == counts
    assert counter_of(*count_arrays(counts), n_vocab=3) is None
    tokens, numbers = count_arrays(counts)
    assert counter_of(tokens, numbers[:1], n_vocab=4) is None
    assert counter_of(tokens, numbers * 0, n_vocab=4) is None
