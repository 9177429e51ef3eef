"""ConfLayers' selection of layers (arXiv 2604.14612), to the bit of the published implementation.

That implementation (github.com/WA225/ConfLayers, ``model/conflayers/utils.py``) works in float16
throughout, so every step here names its dtype, which also keeps numpy 1 and 2 in agreement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput, EdgeConflayersError

_F16 = np.float16
MIN_LAYERS = 4
"""The second-order gradient needs two candidates between the first and the last layer."""


@dataclass(frozen=True)
class ConfLayersSettings:
    """The published method's settings; the defaults are those of its published scripts.

    Raises:
        BadInput: a value is out of its range.
    """

    skip_ratio: float = 0.4
    """Share of the candidate layers to skip, which lambda is steered towards."""
    ratio_slack: float = 0.25
    """How far the skipped share may exceed ``skip_ratio`` before lambda is raised."""
    initial_lambda: float = 0.0
    """Starting weight of the neighbours' deviation in a layer's threshold."""
    lambda_step: float = 0.05
    """By how much one proposal raises or lowers lambda."""
    search_interval: int = 25
    """Rounds over which one skip set is judged."""
    context_window: int = 32
    """Generated tokens that a proposal looks at."""
    max_score: float = 0.95
    """Mean accepted/drafted above which the search may stop."""
    stop_count: float = 4.0
    """Mean accepted tokens a round above which the search may stop; both must hold."""
    give_up_count: float = 1.0
    """Mean accepted tokens a round under which a set is given up halfway."""
    max_opt_iter: int = 1000
    """Proposals after which the best set is used and the search stops."""
    stop_threshold: float = 0.8
    """A draft stops at the token whose top-1 probability is under this."""
    max_draft: int = 25
    """Most tokens drafted in a round."""
    leaf_probability: float = 0.15
    """An alternative that is less likely than this, together with the tokens before it, is not
    verified as a leaf. As published, all are verified (0.0), which pays only if verifying more
    tokens is free; this value is not tuned."""

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float, float], ...] = (
            ("skip_ratio", 0.0, 1.0),
            ("ratio_slack", 0.0, 1.0),
            ("initial_lambda", -100.0, 100.0),
            ("lambda_step", 0.0, 1.0),
            ("search_interval", 1, math.inf),
            ("context_window", 1, math.inf),
            ("max_score", 0.0, 1.0),
            ("stop_count", 0.0, math.inf),
            ("give_up_count", 0.0, math.inf),
            ("max_opt_iter", 1, math.inf),
            ("stop_threshold", 0.0, 1.0),
            ("max_draft", 1, math.inf),
            ("leaf_probability", 0.0, 1.0),
        )
        for name, low, high in ranges:
            value = getattr(self, name)
            if not low <= value <= high:
                limit = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise BadInput(f"ConfLayers setting {name} is {value}: give a value {limit}")

    def smallest_set(self, n_layer: int) -> int:
        """The fewest layers a skip set must have to be judged, in a model of n_layer layers."""
        return int((n_layer - 2) * self.skip_ratio) + 1


@dataclass(frozen=True)
class Selection:
    """What ``select_layers`` chose, and by which numbers.

    Attributes:
        skip_layers: layers to skip, ascending.
        next_lambda: lambda for the next proposal.
        windows, thresholds: of each candidate layer.
    """

    skip_layers: tuple[int, ...]
    next_lambda: float
    windows: tuple[int, ...]
    thresholds: tuple[float, ...]


def _leading_run(values: npt.NDArray[np.float16]) -> int:
    """Number of equal values at the start."""
    different = np.flatnonzero(values != values[0])
    return int(different[0]) if different.size else len(values)


def _centred_on_half(g: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Min-max scales ``g``, then maps it so that its mean is 0.5 and it stays within [0, 1]."""
    low, high = g.min(), g.max()
    if low == high:
        return np.full_like(g, 0.5)
    scaled = (g - low) / (high - low + _F16(1e-8))
    mean = scaled.mean()
    half = _F16(0.5)
    slope = min(half / (scaled.max() - mean), half / (mean - scaled.min()))
    centred: npt.NDArray[np.float16] = np.clip(
        slope * scaled + (half - slope * mean), _F16(0), _F16(1)
    )
    return centred


def select_layers(
    confidence: npt.NDArray[np.float16],
    n_layer: int,
    lam: float,
    settings: ConfLayersSettings,
    family: str,
) -> Selection:
    """Chooses the layers whose confidence is low among their neighbours'.

    Among almost equal confidences, one that differs has a standardised value whose square is beyond
    float16. As in the published code, its neighbours' spread is then infinite, and they are skipped
    only if lambda is negative.

    Args:
        confidence: float16 [n_layer - 2], attention's plus MLP's, of layers 1 .. n_layer - 2.
        n_layer: the model's layers.
        lam: the current lambda.
        settings: of them, the skip ratio and how lambda is steered.
        family: the model's family or GGUF architecture; one whose name contains "qwen" gets
            narrower windows, as in the published code.

    Raises:
        ValueError: a wrong shape, or fewer than MIN_LAYERS layers.
        EdgeConflayersError: confidences that are not finite.
    """
    x = np.asarray(confidence, dtype=_F16)
    if n_layer < MIN_LAYERS or x.shape != (n_layer - 2,):
        raise ValueError(f"confidence must be [n_layer - 2] of {n_layer} layers, not {x.shape}")
    if not np.isfinite(x).all():
        raise EdgeConflayersError(
            "the model's layer confidences are not finite: the file is damaged or its arithmetic "
            "overflows; try another quantization, or --method plain"
        )
    z = (x - x.mean()) / (x.std() + _F16(1e-6))
    gradient = np.gradient(np.gradient(z))
    reach = 5 * _leading_run(gradient)
    if "qwen" in family.lower():
        reach = min(n_layer // 3, reach)
    widening = _centred_on_half(gradient)

    skip: list[int] = []
    windows: list[int] = []
    thresholds: list[float] = []
    weight = _F16(lam)
    for i, own in enumerate(z):
        window = 2 + int(reach * float(widening[i]) * ((i + 1) / n_layer))
        half = window // 2
        neighbours = np.concatenate([z[max(0, i - half) : i], z[i + 1 : i + half + 1]])
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite spread: see above
            threshold = neighbours.mean() - weight * neighbours.std()
        if own < threshold:
            skip.append(i + 1)
        windows.append(window)
        thresholds.append(float(threshold))

    ratio = len(skip) / (n_layer - 2)
    next_lambda = lam
    if ratio > settings.skip_ratio + settings.ratio_slack:
        next_lambda = lam + settings.lambda_step
    elif ratio < settings.skip_ratio:
        next_lambda = lam - settings.lambda_step
    return Selection(tuple(skip), next_lambda, tuple(windows), tuple(thresholds))
