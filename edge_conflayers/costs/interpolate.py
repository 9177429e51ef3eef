"""Piecewise linear interpolation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at ``x`` on straight lines through measured points.

    Outside the points, the first or last line goes on. One point gives a constant.

    Args:
        points: (x, value) pairs, at least one, by ascending x, no x twice.
        x: where to read the value.
    """
    if len(points) == 1:
        return points[0][1]
    right = bisect_right(points, x, lo=1, hi=len(points) - 1, key=lambda point: point[0])
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
