"""Thresholds of exits, for one level of accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.exits.calibration import NEVER, calibrate, threshold_of

_TOKENS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.5]), st.booleans()), max_size=30
)


@given(tokens=_TOKENS, epsilon=st.floats(0.0, 1.0))
def test_a_threshold_is_the_largest_that_is_right_often_enough(
    tokens: list[tuple[float, bool]], epsilon: float
) -> None:
    entropy = np.array([each for each, _ in tokens])
    right = np.array([hit for _, hit in tokens], dtype=bool)
    found = threshold_of(entropy, right, epsilon)

    def accuracy(threshold: float) -> float:
        taken = right[entropy <= threshold]
        return float(taken.mean()) if len(taken) else -1.0

    possible = [each for each in {*entropy.tolist()} if accuracy(each) >= epsilon]
    if not possible:
        assert found == NEVER
    elif max(possible) == entropy.max():
        assert found == math.inf
    else:
        assert found == max(possible)


@given(
    exits=st.lists(
        st.lists(st.tuples(st.floats(0.0, 5.0), st.booleans()), min_size=20, max_size=20),
        min_size=1,
        max_size=4,
    ),
    epsilon=st.floats(0.0, 1.0),
)
def test_what_each_exit_is_the_first_to_be_sure_of_is_right_often_enough(
    exits: list[list[tuple[float, bool]]], epsilon: float
) -> None:
    entropies = np.array([[each for each, _ in exit] for exit in exits])
    right = np.array([[hit for _, hit in exit] for exit in exits])
    thresholds = calibrate(entropies, right, epsilon)
    left = np.ones(20, dtype=bool)
    for entropy, hits, threshold in zip(entropies, right, thresholds, strict=True):
        sure = left & (entropy <= threshold)
        assert not sure.any() or hits[sure].mean() >= epsilon
        assert sure.any() or threshold in (NEVER, math.inf)
        left &= ~sure


def test_known_thresholds() -> None:
    entropies = np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.2, 0.9]])
    right = np.array([[True, True, False, False], [False, False, True, False]])
    # The first is right about the first two; the second about one of the other two.
    assert calibrate(entropies, right, 1.0) == (0.2, 0.2)
    assert calibrate(entropies, right, 0.6) == (0.3, NEVER)
    assert calibrate(entropies, right, 0.0) == (math.inf, NEVER)
    assert calibrate(np.zeros((2, 0)), np.zeros((2, 0), dtype=bool), 0.5) == (NEVER, NEVER)


@given(epsilon=st.floats(0.0, 1.0))
def test_a_lower_accuracy_makes_the_first_exit_sure_of_more(epsilon: float) -> None:
    rng = np.random.default_rng(0)
    entropies = rng.exponential(size=(1, 200))
    right = rng.uniform(size=(1, 200)) < np.exp(-entropies)
    (one,), (other,) = (calibrate(entropies, right, e) for e in (epsilon, epsilon / 2))
    assert other >= one
    assert one == pytest.approx(threshold_of(entropies[0], right[0], epsilon))
