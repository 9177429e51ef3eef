"""Figure: where the time of a text goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from edge_conflayers.bench.page.style import INK, drawing

PARTS = {
    "prompt_seconds": ("prompt", "#656d76"),
    "begin_seconds": ("preparing", "#9a6700"),
    "draft_seconds": ("drafting", "#bc4c00"),
    "verify_seconds": ("verifying", "#0969da"),
    "search_seconds": ("learning", "#1a7f37"),
    "sample_seconds": ("drawing tokens", "#8250df"),
    "other_seconds": ("other", "#bf3989"),
}
"""The parts by their key, with their name and colour. "verifying" are the full model's steps, plain
ones included."""

_OF_SECONDS = ("draft_seconds", "verify_seconds", "search_seconds", "sample_seconds")


def milliseconds(total: Mapping[str, Any]) -> dict[str, float]:
    """Each part's milliseconds for a written token; those that are not known are left out."""
    tokens = total["tokens"] or 1
    known = {key: total[key] for key in PARTS if key in total}
    known["other_seconds"] = max(
        0.0, total["seconds"] - sum(known.get(key, 0.0) for key in _OF_SECONDS)
    )
    return {key: known[key] * 1e3 / tokens for key in PARTS if key in known}


def draw(report: Mapping[str, Any]) -> Figure:
    """The figure."""
    methods = report["methods"]
    parts = {name: milliseconds(total) for name, total in methods.items()}
    with drawing(1.25 + 0.32 * len(methods)) as figure:
        axes = figure.add_subplot()
        for row, times in enumerate(parts.values()):
            left = 0.0
            for key, value in times.items():
                axes.barh(row, value, left=left, height=0.62, color=PARTS[key][1], linewidth=0)
                left += value
            axes.text(left, row, f" {left:.1f}", va="center", color=INK, fontsize=9)
        axes.set_yticks(range(len(parts)), labels=list(parts))
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.margins(x=0.12)
        axes.set_xlim(left=0.0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("milliseconds for a written token")
        seen = [key for key in PARTS if any(times.get(key, 0.0) > 0 for times in parts.values())]
        handles = [Patch(color=PARTS[key][1], label=PARTS[key][0]) for key in seen]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
        return figure
