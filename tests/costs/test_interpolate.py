"""The one interpolator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.costs.interpolate import interpolate

POINTS = [(1, 1.0), (2, 1.5), (4, 1.7), (8, 3.3)]


def test_straight_lines_between_the_points_and_beyond_them() -> None:
    found = [interpolate(POINTS, x) for x in (0, 1, 1.5, 2, 3, 4, 6, 8, 10)]
    assert found == pytest.approx([0.5, 1.0, 1.25, 1.5, 1.6, 1.7, 2.5, 3.3, 4.1])


def test_one_point_is_a_constant() -> None:
    assert [interpolate([(240, 0.04)], x) for x in (0, 240, 5000)] == [0.04] * 3


@given(
    st.dictionaries(st.integers(0, 5000), st.floats(-1e3, 1e3), min_size=2, max_size=12),
    st.floats(0, 1),
)
def test_within_the_points_as_numpy_has_it(values: dict[int, float], share: float) -> None:
    points = sorted(values.items())
    x = points[0][0] + share * (points[-1][0] - points[0][0])
    expected = np.interp(x, [at for at, _ in points], [value for _, value in points])
    assert interpolate(points, x) == pytest.approx(float(expected), rel=1e-9, abs=1e-6)
