"""Colours for light and dark pages, and SVG that fits both.

Figures are drawn in the light colours, which every program shows; a style sheet in the SVG replaces
them where a browser asks for dark ones.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from edge_conflayers.bench.report import REFERENCE

WIDTH = 5.0
"""Inches of a figure: 360 points, so that text of 10 points can be read on a phone."""

INK, MUTED, GRID = "#1f2328", "#656d76", "#d0d7de"
ACCENT = "#0969da"

# Colours by method: each stands out on white, and its partner on near black.
_METHODS = {
    "#0969da": "#58a6ff",
    "#bc4c00": "#f0883e",
    "#1a7f37": "#3fb950",
    "#8250df": "#bc8cff",
    "#bf3989": "#f778ba",
    "#0f766e": "#2dd4bf",
    "#9a6700": "#d29922",
    "#cf222e": "#ff7b72",
}
_DARK = {INK: "#e6edf3", MUTED: "#9198a1", GRID: "#3d444d", **_METHODS}
_MARKERS = "os^DvPX*"  # so that colours are not all that tells methods apart

_RC = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


def dark_style() -> str:
    """CSS that gives a figure its dark colours."""
    rules = (
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    return "@media (prefers-color-scheme: dark){" + "".join(rules) + "}"


def method_styles(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each method but plain decoding; the same in every figure."""
    colours = list(_METHODS)
    names = [name for name in report["methods"] if name != REFERENCE]
    return {
        name: (colours[i % len(colours)], _MARKERS[(i + i // len(colours)) % len(_MARKERS)])
        for i, name in enumerate(names)
    }


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """An empty figure in this style.

    Args:
        height: inches.
    """
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_RC}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def to_svg(figure: Figure, name: str, title: str, about: Mapping[str, str]) -> str:
    """A figure as an SVG element, whose ids are of use once in a page.

    Args:
        name: of the figure, short.
        title: read out instead of the figure.
        about: where it was measured; its first entries are written below the figure, the others
            kept in its description.
    """
    shown = " · ".join(list(about.values())[:3])
    figure.text(0.99, -0.01, shown, ha="right", va="top", fontsize=8, color=MUTED)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.04,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r'\b(id|clip-path|xlink:href)="(url\()?(#?)', rf'\1="\2\g<3>{name}-', svg)
    svg = re.sub(r"font: ([\d.]+px) [^\"]*?(?=[;\"])", r"font: \1 system-ui, sans-serif", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)  # as wide as there is room
    described = "; ".join(f"{key}: {value}" for key, value in about.items())
    return (
        f'{head} role="img"><title>{escape(title)}</title><desc>{escape(described)}</desc>'
        f"<style>{dark_style()}</style>{body}"
    )
