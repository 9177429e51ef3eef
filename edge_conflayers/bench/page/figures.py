"""The figures of the page, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from edge_conflayers.bench.page import acceptance, dropped, speedup, step_costs, time_split


@dataclass(frozen=True)
class Kind:
    """A figure that a page can have.

    Attributes:
        name: of its SVG file.
        title: above it.
        caption: how to read it.
        draw: draws it; gives None where the report does not hold what it shows.
        missing: what to say then.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Mapping[str, Any]], Figure | None]
    missing: str


KINDS = (
    Kind(
        "speedup",
        "Speed by category",
        "Tokens per second over plain decoding's in the same run. A marker is a category's texts"
        " together, each by its median repeat; the bar behind it spans the middle half of its"
        " texts, or all of fewer than four; thin strokes are the repeats, each by itself.",
        speedup.draw,
        "It needs plain decoding among the methods, and another one.",
    ),
    Kind(
        "time",
        "Where the time goes",
        "Milliseconds for each token that was written, prompts included. Verifying is the full"
        " model's steps, plain ones too; preparing comes once before a text.",
        time_split.draw,
        "",
    ),
    Kind(
        "acceptance",
        "Acceptance by position",
        "Of the drafts that reach a position, the share whose token there was accepted. In a tree a"
        " position is a depth, and any branch counts.",
        acceptance.draw,
        "Nothing was drafted, or the file is of a version that did not count it.",
    ),
    Kind(
        "verify",
        "What verifying costs here: V(n)",
        "The time of a full step over n tokens. The dashed line is what reading the weights once"
        " takes at the speed at which this machine reads memory: no step can be faster. What a"
        " draft gains is the distance to the dotted line, where each token is a step of its own.",
        step_costs.draw_v,
        "Step costs are measured by `bench --report`; they are not in this file.",
    ),
    Kind(
        "drop",
        "What drafting with layers dropped costs here: c(S)",
        "The time of a one-token step with so many layers left out, spread evenly, and the floor of"
        " what is still read.",
        step_costs.draw_c,
        "It was not measured, or this model's layers cannot be dropped.",
    ),
    Kind(
        "layers",
        "Layers that drafts do without",
        "The darker, the more of the texts ended with drafts that leave this part of a layer out:"
        " dropped, bridged or after an early exit.",
        dropped.draw,
        "No method dropped layers, or the file is of a version that did not note which.",
    ),
)
