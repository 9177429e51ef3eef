"""Figures: V(n) and c(S) in milliseconds, against the time that reading the weights takes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edge_conflayers.bench.page.style import ACCENT, INK, MUTED, drawing


def floor_ms(costs: Mapping[str, Any], weight_bytes: float | None) -> float | None:
    """Milliseconds of reading so many bytes at the speed that was measured here."""
    speed = costs.get("memory_gb_per_s")
    return None if not speed or weight_bytes is None else weight_bytes / speed / 1e6


def draw_v(report: Mapping[str, Any]) -> Figure | None:
    """The time of a step over n tokens; None where it was not measured."""
    costs = report.get("costs")
    if not costs:
        return None
    t1 = costs["t1_ms"]
    times = {1: t1, **{int(n): v * t1 for n, v in costs["v"].items()}}
    floor = floor_ms(costs, costs.get("weight_bytes"))
    highest = max(times.values())
    with drawing(3.2) as figure:
        axes = figure.add_subplot()
        axes.plot(list(times), list(times.values()), "o-", color=ACCENT, label="measured: V(n) T1")
        alone = [n for n in times if n * t1 <= 1.6 * highest]
        axes.plot(alone, [n * t1 for n in alone], ":", color=MUTED, label="one by one: n T1")
        if floor is not None:
            axes.axhline(floor, linestyle="--", color=INK, label="floor: weights read once")
        axes.set_ylim(0.0, 1.25 * highest)
        axes.set_xlabel("tokens in the step")
        axes.set_ylabel("ms")
        figure.legend(loc="outside upper center", ncols=2)
        return figure


def draw_c(report: Mapping[str, Any]) -> Figure | None:
    """The time of a one-token step with layers dropped; None where it was not measured."""
    costs = report.get("costs")
    if not costs or not costs.get("c"):
        return None
    dropped = [len(each["skip_set"]) for each in costs["c"]]
    found = (floor_ms(costs, each.get("weight_bytes")) for each in costs["c"])
    floors = [floor for floor in found if floor is not None]
    with drawing(3.0) as figure:
        axes = figure.add_subplot()
        times = [each["c"] * costs["t1_ms"] for each in costs["c"]]
        axes.plot(dropped, times, "o-", color=ACCENT, label="measured: c(S) T1")
        if len(floors) == len(dropped):
            axes.plot(dropped, floors, "--", color=INK, label="floor: weights read once")
        axes.set_ylim(0.0, 1.1 * max(times))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layers dropped")
        axes.set_ylabel("ms")
        figure.legend(loc="outside upper center", ncols=2)
        return figure
