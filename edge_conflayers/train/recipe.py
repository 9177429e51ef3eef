"""LayerSkip's training recipe in numbers (arXiv 2404.16710): how often a layer is dropped, what
each exit's loss weighs, and which exits are trained at a step.

An exit is named by how many layers run before it, as everywhere in this package: the paper's exit
at layer l, counted from 0, is exit l + 1. The exit after all layers is the full model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_conflayers.errors import BadInput

Curriculum = Literal["rotational", "gradual", "none"]
DropoutCurriculum = Literal["none", "exp"]


def dropout_rates(
    n_layer: int, p_max: float, progress: float, curriculum: DropoutCurriculum = "none"
) -> list[float]:
    """p(l, t) = S(t) D(l) p_max for every layer: from 0 at the first to at most p_max at the last.

    Args:
        progress: t / (T - 1), from 0 at the first step to 1 at the last.
        curriculum: S(t): "none" is 1, for a model that is trained already; "exp" grows from 0 to 1,
            for one that is trained from scratch.
    """
    scale = 1.0 if curriculum == "none" else math.exp(progress * math.log(2)) - 1
    last = max(1, n_layer - 1)
    return [scale * (math.exp(layer * math.log(2) / last) - 1) * p_max for layer in range(n_layer)]


def exit_weight(exit: int, n_layer: int, scale: float) -> float:
    """e(l), what an exit's loss weighs before weights are normalized.

    Args:
        exit: layers that run before it.
        scale: e_scale, from 0 for no loss at early exits to 1.
    """
    layer = exit - 1
    if exit < n_layer:
        return scale * layer * (layer + 1) / 2
    return layer + scale * (layer - 1) * layer / 2


@dataclass(frozen=True)
class Recipe:
    """What a training step drops and what it trains.

    Raises:
        BadInput: a value is out of its range.
    """

    n_layer: int
    """Layers of the model."""
    exits: tuple[int, ...]
    """Early exits that are trained, ascending; the paper's are all of them."""
    layer_dropout: float = 0.1
    """p_max; a value of the paper's for models that are trained already."""
    dropout_curriculum: DropoutCurriculum = "none"
    """S(t), see ``dropout_rates``."""
    exit_scale: float = 1.0
    """e_scale; the paper's for fine-tuning."""
    curriculum: Curriculum = "rotational"
    """"rotational": every ``interval``-th exit, moved on by one each step. "gradual": from the last
    exit down to the first, all of them from half of the steps on. "none": all at every step."""
    interval: int = 4
    """Of the rotational curriculum (the paper's R). Not tuned."""

    def __post_init__(self) -> None:
        if not self.exits or not all(0 < exit < self.n_layer for exit in self.exits):
            raise BadInput(
                f"a model of {self.n_layer} layers has no exits {list(self.exits)}: give some from"
                f" 1 to {self.n_layer - 1}"
            )
        if not 0 <= self.layer_dropout < 1:
            raise BadInput(f"a layer dropout of {self.layer_dropout} makes no sense; give 0 to 0.9")
        if not 0 < self.exit_scale <= 1:
            raise BadInput(f"an exit scale of {self.exit_scale} makes no sense; give 0.1 to 1")
        if self.interval < 1:
            raise BadInput("the interval between trained exits must be at least 1")

    def dropout_rates(self, progress: float) -> list[float]:
        """How often each layer is dropped; see the function of this name."""
        return dropout_rates(self.n_layer, self.layer_dropout, progress, self.dropout_curriculum)

    def enabled(self, step: int, progress: float) -> tuple[int, ...]:
        """The early exits that a step trains, by the curriculum C(t, l).

        Args:
            step: counted from 0.
            progress: see ``dropout_rates``.
        """
        n = len(self.exits)
        if self.curriculum == "rotational":
            interval = min(self.interval, n)
            return tuple(self.exits[i] for i in range(n) if (i - step) % interval == 0)
        if self.curriculum == "gradual":
            return tuple(self.exits[i] for i in range(n) if 2 * progress >= (n - i) / n)
        return self.exits

    def loss_weights(self, exits: Sequence[int]) -> Mapping[int, float]:
        """What the losses of some exits and of the full model weigh; together 1."""
        weights = {
            exit: exit_weight(exit, self.n_layer, self.exit_scale)
            for exit in (*exits, self.n_layer)
        }
        total = sum(weights.values())
        return {exit: weight / total for exit, weight in weights.items()}
