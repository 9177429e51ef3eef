"""Figure: how often drafted tokens are accepted, by their position in the draft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edge_conflayers.bench.page.style import drawing, method_styles

_LEAST_ROUNDS = 10
"""Positions that fewer drafts reach are left out. Not tuned."""


def by_position(total: Mapping[str, Any]) -> list[float]:
    """Of the drafts that reach a position, the share whose token there was accepted; up to the
    last position that enough drafts reach."""
    shares = []
    for drafted, accepted in zip(
        total.get("drafted_at", ()), total.get("accepted_at", ()), strict=True
    ):
        if drafted < _LEAST_ROUNDS:
            break
        shares.append(accepted / drafted)
    return shares


def draw(report: Mapping[str, Any]) -> Figure | None:
    """The figure; None where nothing was drafted, or no position is known."""
    methods = report["methods"]
    shares = {name: by_position(total) for name, total in methods.items()}
    if not any(shares.values()):
        return None
    styles = method_styles(report)
    with drawing(3.2) as figure:
        axes = figure.add_subplot()
        for name, values in shares.items():
            if values:
                colour, marker = styles[name]
                positions = range(1, len(values) + 1)
                axes.plot(positions, values, marker=marker, color=colour, label=name)
        axes.set_ylim(0.0, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("position in the draft")
        axes.set_ylabel("accepted")
        figure.legend(loc="outside upper center", ncols=3)
        return figure
