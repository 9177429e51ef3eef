"""Frequencies that start from what is expected and follow what happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.drafters.calibration import Calibration


@given(
    st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=60),
    st.floats(0.01, 0.99),
)
def test_the_frequency_of_what_was_seen(seen: list[tuple[int, bool]], prior: float) -> None:
    calibration = Calibration([prior, 0.5], weight=8)
    for index, hit in seen:
        calibration.observe(index, hit)
    hits = [hit for index, hit in seen if index == 0]
    assert calibration.probability(0) == pytest.approx((prior * 8 + sum(hits)) / (8 + len(hits)))
    again = Calibration([0.5, 0.5], weight=1)
    again.resume(json.loads(json.dumps(calibration.state())))
    assert [again.probability(i) for i in (0, 1)] == [calibration.probability(i) for i in (0, 1)]


def test_old_evidence_gives_way() -> None:
    calibration = Calibration([0.5], weight=2)
    for hit in [True] * 5000 + [False] * 1000:
        calibration.observe(0, hit)
    assert 0 < calibration.probability(0) < 0.2


@pytest.mark.parametrize(
    "state",
    [
        {"hits": [1.0], "seen": [2.0]},
        {"hits": [1.0, 3.0], "seen": [2.0, 2.0]},
        {"hits": [0.0, 1.0], "seen": [2.0, 2.0]},
        {"hits": [1.0, 1.0], "seen": [2.0, float("nan")]},
        {"hits": [1.0, 1.0], "seen": [2.0, float("inf")]},
        {"hits": "ab", "seen": "cd"},
        {"hits": [1.0, 1.0]},
        {"hits": 1, "seen": 2},
    ],
)
def test_a_state_that_cannot_be(state: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Calibration([0.5, 0.5], weight=1).resume(state)
