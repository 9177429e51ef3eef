"""Figure: which layers each method's drafts do without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from edge_conflayers.bench.page.style import ACCENT, GRID, drawing

_PARTS = {"attention_dropped": "attention", "mlp_dropped": "MLP"}


def shares(report: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """For each method whose drafts do without layers, by sub-layer and layer: the share of its
    texts at whose end drafts did without it: it was dropped, bridged or after an early exit. Texts
    that it drafted nothing for do not count."""
    n_layer = report.get("n_layer")
    if not isinstance(n_layer, int):
        return {}
    found: dict[str, dict[str, list[float]]] = {}
    for method in report["methods"]:
        runs = [prompt["methods"][method] for prompt in report["prompts"]]
        texts = [left for run in runs if (left := left_out(run, n_layer)) is not None]
        if texts:
            found[method] = {
                key: [sum(i in text[key] for text in texts) / len(texts) for i in range(n_layer)]
                for key in _PARTS
            }
    return found


def left_out(run: Mapping[str, Any], n_layer: int) -> dict[str, Sequence[int]] | None:
    """The layers that a text's drafts did without, by sub-layer; None if none did."""
    if run.get("exit_layer") is not None:
        return dict.fromkeys(_PARTS, range(run["exit_layer"], n_layer))
    if run.get("blocks") is not None:
        bridged = [layer for begin, end in run["blocks"] for layer in range(begin, end)]
        return dict.fromkeys(_PARTS, bridged)
    if run.get("attention_dropped") is None:
        return None
    return {key: run[key] for key in _PARTS}


def draw(report: Mapping[str, Any]) -> Figure | None:
    """The figure; None where no method dropped a layer."""
    found = shares(report)
    if not found:
        return None
    n_layer = report["n_layer"]
    labels = []
    with drawing(0.75 + 0.52 * len(found)) as figure:
        axes = figure.add_subplot()
        for i, (method, parts) in enumerate(found.items()):
            for j, (key, values) in enumerate(parts.items()):
                y = 2.4 * i + j
                labels.append((y, f"{method}, {_PARTS[key]}" if j == 0 else _PARTS[key]))
                for layer, share in enumerate(values):
                    cell = (layer - 0.5, y - 0.45)
                    axes.add_patch(
                        Rectangle(cell, 1, 0.9, fill=False, edgecolor=GRID, linewidth=0.6)
                    )
                    if share:
                        axes.add_patch(
                            Rectangle(cell, 1, 0.9, color=ACCENT, alpha=share, linewidth=0)
                        )
        axes.set_xlim(-0.5, n_layer - 0.5)
        axes.set_ylim(2.4 * len(found) - 0.8, -0.6)
        axes.set_yticks([y for y, _ in labels], labels=[text for _, text in labels])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        return figure
