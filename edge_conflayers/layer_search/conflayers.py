"""ConfLayers (arXiv 2604.14612): skip whole layers whose confidence is low among neighbours.

`select_layers` and `module_confidence` follow the published implementation
(github.com/WA225/ConfLayers, `model/conflayers/utils.py`) to the bit: it works in float16
throughout, so every step here names its dtype, which also keeps numpy 1 and 2 in agreement.
`ConfLayersSearch` is its online search, free of any model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.probe import probe
from edge_conflayers.errors import BadInput, EdgeConflayersError

_F16 = np.float16
_STATE_KIND = "conflayers"
MIN_LAYERS = 4  # the second-order gradient needs two candidates between first and last layer


@dataclass(frozen=True)
class ConfLayersSettings:
    """The published method's constants, under the defaults of its published scripts.

    Raises BadInput when a value is out of its range.
    """

    skip_ratio: float = 0.4
    """Share of the candidate layers to skip; the aim that lambda is steered by."""
    ratio_slack: float = 0.25
    """How far the skipped share may exceed `skip_ratio` before lambda is raised."""
    initial_lambda: float = 0.0
    """Starting weight of the neighbours' deviation in a layer's threshold."""
    lambda_step: float = 0.05
    """How much one proposal may move lambda."""
    search_interval: int = 25
    """Rounds over which one skip set is judged."""
    context_window: int = 32
    """Generated tokens that a proposal looks at."""
    max_score: float = 0.95
    """Mean accepted/drafted above which the search may stop."""
    stop_count: float = 4.0
    """Mean accepted tokens a round that stopping asks for as well."""
    give_up_count: float = 1.0
    """Mean accepted tokens a round under which a set is given up halfway."""
    max_opt_iter: int = 1000
    """Proposals after which the best set is used and the search stops."""
    stop_threshold: float = 0.8
    """A draft stops at the token whose top-1 probability is under this."""
    max_draft: int = 25
    """Most tokens drafted in a row."""
    leaf_probability: float = 0.15
    """Least probability of an alternative, with all before it, to be verified as a leaf. The
    published scripts verify all (0), which pays where verifying a token costs nothing."""

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
        """Layers that a skip set must have to be judged, for a model of n_layer layers."""
        return int((n_layer - 2) * self.skip_ratio) + 1


@dataclass(frozen=True)
class Selection:
    """What `select_layers` chose, with the numbers it chose by (one per candidate layer)."""

    skip_layers: tuple[int, ...]
    next_lambda: float
    windows: tuple[int, ...]
    thresholds: tuple[float, ...]


def module_confidence(outputs: npt.NDArray[Any]) -> np.float16:
    """Confidence of one sub-layer from its outputs before the residual add.

    outputs: float [tokens, width]. Softmax over the width, entropy in nats with
    log(p + 1e-12), mean over tokens, 1 - H / log(width): computed in float32, returned in
    float16. The product computes the same in the graph; this is the reference for it.
    Raises ValueError unless there is at least one token and a width of at least two.
    """
    x = np.asarray(outputs, dtype=np.float32)
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 2:
        raise ValueError(f"outputs must be [tokens >= 1, width >= 2], not {x.shape}")
    e = np.exp(x - x.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    entropy = -(p * np.log(p + np.float32(1e-12))).sum(axis=1).mean()
    confidence: np.float16 = _F16(np.float32(1) - entropy / np.float32(math.log(x.shape[1])))
    return confidence


def _leading_run(values: npt.NDArray[np.float16]) -> int:
    different = np.flatnonzero(values != values[0])
    return int(different[0]) if different.size else len(values)


def _centred_on_half(g: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Min-max scale g, then map it affinely so that its mean is 0.5 and it stays in [0, 1]."""
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
    """Choose the layers to skip from the candidates' confidences.

    confidence: float16 [n_layer - 2], attention plus MLP, of layers 1 .. n_layer - 2.
    lam: the current lambda. family: the model's family or GGUF architecture; names that
    contain "qwen" get the narrower windows that the published code gives that family.
    Among almost equal confidences one that differs has a score whose square is beyond float16: as
    in the published code, its neighbours' spread is then infinite, and they are skipped only if
    lambda is negative.
    Raises ValueError for a wrong shape or fewer than MIN_LAYERS layers, EdgeConflayersError
    for confidences that are not finite.
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


class ConfLayersSearch:
    """The published online search, as a state machine without a model (a `SkipSetSearch`).

    Starts with the odd candidates. The first proposal is due as soon as the context window
    is full; a proposal with fewer than `settings.smallest_set` layers is replaced after the
    next round, so that lambda soon reaches a value that skips enough; any other set is judged
    over `settings.search_interval` rounds, or given up halfway. Lists survive from one text to
    the next, because a short text alone never fills an interval.

    n_layer: the model's layers. family: see `select_layers`.
    Raises BadInput for a model with fewer than MIN_LAYERS layers.
    """

    def __init__(
        self, n_layer: int, family: str, settings: ConfLayersSettings | None = None
    ) -> None:
        if n_layer < MIN_LAYERS:
            raise BadInput(
                f"the model has {n_layer} layers and dropping layers needs at least {MIN_LAYERS}: "
                "use --method plain"
            )
        self.settings = settings or ConfLayersSettings()
        self.n_layer = n_layer
        self.family = family
        self._skip_set: tuple[int, ...] = tuple(range(1, n_layer - 1, 2))
        self._best_set: tuple[int, ...] = ()
        self._best_count = 0.0
        self._lambda = self.settings.initial_lambda
        self._scores: list[float] = []
        self._counts: list[int] = []
        self._proposals = 0
        self._due = False
        self._finished = False
        self._window_full = False  # of the current text, so never part of the state

    @property
    def skip_set(self) -> tuple[int, ...]:
        """Layers to drop in the next draft; empty when the search ended without a usable set."""
        return self._skip_set

    @property
    def best_set(self) -> tuple[int, ...]:
        """The best set judged so far, or the one the search stopped at; empty before any."""
        return self._best_set

    @property
    def best_count(self) -> float:
        """Mean accepted tokens a round of `best_set`; 0 before any."""
        return self._best_count

    @property
    def lam(self) -> float:
        """The lambda that the next proposal uses."""
        return self._lambda

    @property
    def proposals(self) -> int:
        """Proposals taken so far."""
        return self._proposals

    @property
    def wants_probe(self) -> bool:
        """Whether a proposal is due and the current text fills the context window."""
        return self._due and self._window_full and not self._finished

    @property
    def context_window(self) -> int:
        """How many of the last generated tokens a probe runs over."""
        return self.settings.context_window

    @property
    def finished(self) -> bool:
        """Whether the search has stopped; `skip_set` stays as it is from then on."""
        return self._finished

    @property
    def mask(self) -> LayerMask:
        """The skip set as a mask of whole layers."""
        return LayerMask.layers(self._skip_set)

    def observe(self, round: Round) -> None:
        """See `SkipSetSearch.observe`."""
        self.observe_round(round.draft.row, round.accepted, round.generated)

    def advance(self, session: Session) -> None:
        """Runs the probe over the last generated tokens when a proposal is due."""
        if not self.wants_probe or len(session) < self.context_window:
            return
        confidences = probe(session, session.tokens[-self.context_window :])
        if confidences is not None:
            self.propose(*confidences)

    def observe_round(self, drafted: int, accepted: int, tokens_generated: int) -> None:
        """Report one finished round of `drafted` tokens in a row, `accepted` of them or of the
        leaves beside them kept, after which the text has `tokens_generated` new tokens.

        A round that drafted nothing says nothing about the set and is not counted.
        """
        if not 0 <= accepted <= drafted:
            raise ValueError(f"accepted {accepted} of {drafted} drafted tokens cannot be")
        self._window_full = tokens_generated > self.settings.context_window + 1
        if self._finished or self._due or not self._window_full or drafted == 0:
            return
        too_small = len(self._skip_set) < self.settings.smallest_set(self.n_layer)
        if self._proposals == 0 or too_small:
            self._ask_for_proposal()
            return
        self._scores.append(float(accepted / drafted))
        self._counts.append(int(accepted))
        rounds = len(self._counts)
        if rounds >= self.settings.search_interval:
            self._evaluate()
        elif (
            rounds == self.settings.search_interval // 2
            and sum(self._counts) / rounds < self.settings.give_up_count
        ):
            self._ask_for_proposal()

    def propose(self, confidence_attn: npt.NDArray[Any], confidence_mlp: npt.NDArray[Any]) -> None:
        """Choose the next skip set from a probe over the last `context_window` tokens.

        confidence_attn, confidence_mlp: float [n_layer], `module_confidence` of each layer's
        attention and MLP outputs; first and last are ignored. Does nothing once finished.
        Raises ValueError for a wrong shape, EdgeConflayersError for numbers not finite.
        """
        attn = np.asarray(confidence_attn, dtype=_F16)
        mlp = np.asarray(confidence_mlp, dtype=_F16)
        if attn.shape != (self.n_layer,) or mlp.shape != (self.n_layer,):
            raise ValueError(f"confidences must be [{self.n_layer}], not {attn.shape}, {mlp.shape}")
        if self._finished:
            return
        chosen = select_layers(
            (attn + mlp)[1:-1], self.n_layer, self._lambda, self.settings, self.family
        )
        self._skip_set = chosen.skip_layers
        self._lambda = chosen.next_lambda
        self._proposals += 1
        self._due = False
        self._clear_lists()
        if self._proposals >= self.settings.max_opt_iter:
            self._skip_set = self._best_set
            self._finished = True

    def state(self) -> dict[str, Any]:
        """Everything learned so far, JSON-able; `from_state` restores it exactly."""
        return {
            "kind": _STATE_KIND,
            "n_layer": self.n_layer,
            "family": self.family,
            "skip_set": list(self._skip_set),
            "best_set": list(self._best_set),
            "best_count": self._best_count,
            "lambda": self._lambda,
            "scores": list(self._scores),
            "counts": list(self._counts),
            "proposals": self._proposals,
            "due": self._due,
            "finished": self._finished,
        }

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        n_layer: int,
        family: str,
        settings: ConfLayersSettings | None = None,
    ) -> ConfLayersSearch:
        """A search that goes on where `state` was taken.

        Raises BadInput when the state is not one of this search for a model of n_layer layers.
        """
        search = cls(n_layer, family, settings)
        try:
            for name, expected in (
                ("kind", _STATE_KIND),
                ("n_layer", n_layer),
                ("family", family),
            ):
                if state[name] != expected:
                    raise ValueError(f"{name} is {state[name]!r}, not {expected!r}")
            search._skip_set = _layers(state["skip_set"], n_layer)
            search._best_set = _layers(state["best_set"], n_layer)
            search._best_count = _number(state["best_count"])
            search._lambda = _number(state["lambda"])
            search._scores = [_number(value) for value in state["scores"]]
            search._counts = [_count(value) for value in state["counts"]]
            search._proposals = _count(state["proposals"])
            search._due = _flag(state["due"])
            search._finished = _flag(state["finished"])
            if len(search._scores) != len(search._counts):
                raise ValueError("scores and counts differ in length")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadInput(
                f"the saved ConfLayers state cannot be used ({reason}): start anew with --fresh"
            ) from error
        return search

    def _evaluate(self) -> None:
        mean_count = sum(self._counts) / len(self._counts)
        mean_score = sum(self._scores) / len(self._scores)
        stops = mean_count > self.settings.stop_count and mean_score > self.settings.max_score
        if stops or mean_count > self._best_count:
            self._best_set = self._skip_set
            self._best_count = mean_count
        if stops:
            self._finished = True
            self._clear_lists()
        else:
            self._ask_for_proposal()

    def _ask_for_proposal(self) -> None:
        self._due = True
        self._clear_lists()

    def _clear_lists(self) -> None:
        self._scores.clear()
        self._counts.clear()


def _layers(value: Any, n_layer: int) -> tuple[int, ...]:
    layers = tuple(_count(layer) for layer in value)
    if any(not 1 <= layer <= n_layer - 2 for layer in layers):
        raise ValueError(f"layers {list(layers)} are not all within 1..{n_layer - 2}")
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"layers {list(layers)} are not ascending and unique")
    return layers


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value
