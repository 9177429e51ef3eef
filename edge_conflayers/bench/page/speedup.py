"""Figure: speed over ``plain``, by category and method, with the spread of texts and repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Any

from matplotlib.figure import Figure

from edge_conflayers.bench.page.style import INK, MUTED, drawing, method_styles
from edge_conflayers.bench.report import REFERENCE

ALL = "all texts"
"""The row of all prompts."""

_ROW = 0.17  # inches of a method in a category
_GAP = 0.16  # inches between categories


def compared(report: Mapping[str, Any]) -> list[str]:
    """The methods whose speed over ``plain`` is known."""
    return [
        name
        for name, total in report["methods"].items()
        if name != REFERENCE and total.get("speedup") is not None
    ]


def rows(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Each category's methods, below those of all prompts."""
    return {ALL: report["methods"], **report.get("categories", {})}


def middle_half(
    report: Mapping[str, Any], category: str, method: str
) -> tuple[float, float] | None:
    """Between which speed-ups the middle half of a category's texts is; of fewer than four texts,
    the least and the greatest. None without texts."""
    speedups = sorted(
        prompt["methods"][method]["speedup"]
        for prompt in report["prompts"]
        if category in (ALL, prompt.get("category"))
        and prompt["methods"][method].get("speedup") is not None
    )
    if not speedups:
        return None
    if len(speedups) < 4:
        return speedups[0], speedups[-1]
    low, _, high = quantiles(speedups, n=4, method="inclusive")
    return low, high


def draw(report: Mapping[str, Any]) -> Figure | None:
    """The figure; None where no method can be compared with ``plain``."""
    names = compared(report)
    if not names:
        return None
    styles = {name: style for name, style in method_styles(report).items() if name in names}
    categories = rows(report)
    each = len(names) * _ROW + _GAP
    with drawing(len(categories) * each + 0.5 + 0.2 * ((len(names) + 1) // 2)) as figure:
        axes = figure.add_subplot()
        for row, (category, methods) in enumerate(categories.items()):
            for i, name in enumerate(names):
                y = row * each + i * _ROW
                _draw_method(axes, y, *styles[name], methods[name], report, category, name)
            axes.axhspan(
                row * each - _ROW / 2 - _GAP / 2,
                (row + 1) * each - _ROW / 2 - _GAP / 2,
                color=MUTED,
                alpha=0.08 if row % 2 == 0 else 0.0,
                linewidth=0,
            )
        axes.axvline(1.0, color=INK, linewidth=1.0)
        axes.set_yticks(
            [row * each + (len(names) - 1) * _ROW / 2 for row in range(len(categories))],
            labels=list(categories),
        )
        axes.set_ylim(len(categories) * each - _ROW / 2 - _GAP / 2, -_ROW / 2 - _GAP / 2)
        axes.set_xlim(left=0.0 if min(_ends(report, names)) < 0.5 else 0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("tokens per second, over plain decoding")
        _legend(figure, axes, styles)
        return figure


def _draw_method(
    axes: Any,
    y: float,
    colour: str,
    marker: str,
    total: Mapping[str, Any],
    report: Mapping[str, Any],
    category: str,
    name: str,
) -> None:
    if total.get("speedup") is None:
        return
    spread = middle_half(report, category, name)
    if spread is not None:
        axes.plot(spread, (y, y), color=colour, linewidth=3.5, alpha=0.35, solid_capstyle="butt")
    repeats = total.get("speedup_by_repeat") or []
    if len(repeats) > 1:
        axes.plot(repeats, [y] * len(repeats), "|", color=colour, markersize=7)
    axes.plot([total["speedup"]], [y], marker, color=colour, markersize=5)


def _ends(report: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """The lowest ends of everything that is drawn."""
    spreads = (middle_half(report, category, name) for category in rows(report) for name in names)
    return [low for low, _ in filter(None, spreads)] or [1.0]


def _legend(figure: Figure, axes: Any, styles: Mapping[str, tuple[str, str]]) -> None:
    handles = [
        axes.plot([], [], marker, color=colour, label=name)[0]
        for name, (colour, marker) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(3, len(handles)))
