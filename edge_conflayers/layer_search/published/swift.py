"""SWIFT (arXiv 2410.06916): random sets of sub-layers, every 25th by Bayesian optimisation.

A set is judged by its *matchness* over the last generated tokens: the share of positions at which
the masked model's most likely token is the token that was really generated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.masks import SavedMask, SearchState
from edge_conflayers.layer_search.published.gaussian_process import GaussianProcess, suggest
from edge_conflayers.layer_search.replays import matchness, replay_records
from edge_conflayers.layer_search.sublayers import candidates, mask_of, members
from edge_conflayers.profiles.saved_state import Count, Share, UnusableState

_STATE_KIND = "swift"


@dataclass(frozen=True)
class SwiftSettings:
    """The published method's settings; the defaults are those of its published scripts, except as
    said.

    Raises:
        BadInput: a value is out of its range.
    """

    skip_ratio: float = 0.45
    """Share of the candidate sub-layers to skip."""
    context_window: int = 32
    """Generated tokens that a candidate is judged over."""
    bayes_interval: int = 25
    """One candidate in so many comes from Bayesian optimisation."""
    kappa: float = 2.5
    """Standard deviations added to the mean in its upper confidence bound."""
    noise: float = 0.01
    """Variance of the noise in matchness, over the variance of matchness. Not tuned."""
    max_score: float = 0.95
    """Matchness above which the search stops."""
    max_tolerance: int = 300
    """Candidates without gain after which the search stops."""
    max_candidates: int = 1000
    """Candidates in all after which the search stops."""
    stop_threshold: float = 0.8
    """A draft stops at the token whose top-1 probability is under this."""
    max_draft: int = 25
    """Most tokens drafted in a round."""
    seed: int = 2024
    """Seed of the random sets; ours."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("skip_ratio", 0.0, 1.0),
            ("context_window", 1, math.inf),
            ("bayes_interval", 1, math.inf),
            ("kappa", 0.0, math.inf),
            ("noise", 1e-6, 1.0),
            ("max_score", 0.0, 1.0),
            ("max_tolerance", 1, math.inf),
            ("max_candidates", 1, math.inf),
            ("stop_threshold", 0.0, 1.0),
            ("max_draft", 1, math.inf),
            ("seed", 0, math.inf),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                limit = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise BadInput(f"SWIFT setting {name} is {value}: give a value {limit}")

    def size(self, n_layer: int) -> int:
        """Sub-layers in every set, for a model of n_layer layers."""
        return int(candidates(n_layer) * self.skip_ratio)


class _State(SearchState):
    mask: SavedMask
    matchness: Share
    without_gain: Count
    seen: list[tuple[Annotated[str, msgspec.Meta(pattern="^[0-9a-f]+$")], Share]]


class SwiftSearch:
    """The published online search (a ``SkipSetSearch``): one candidate a round.

    It starts with every second layer. A candidate replaces the set in use if its matchness is
    higher than the highest so far.

    Args:
        n_layer: the model's layers.

    Raises:
        BadInput: a model with too few layers for a set.
    """

    def __init__(self, n_layer: int, settings: SwiftSettings | None = None) -> None:
        self.settings = settings or SwiftSettings()
        self.n_layer = n_layer
        if self.settings.size(n_layer) < 1:
            raise BadInput(
                f"a share of {self.settings.skip_ratio} of the sub-layers of {n_layer} layers is"
                " none: use --method plain"
            )
        self._mask = LayerMask.layers(range(1, n_layer - 1, 2))
        self._matchness = 0.0
        self._without_gain = 0
        self._seen: list[tuple[LayerMask, float]] = []
        self._generated = 0  # in the current text, so never part of the state

    @property
    def mask(self) -> LayerMask:
        """The best set so far."""
        return self._mask

    @property
    def matchness(self) -> float:
        """The matchness of that set when it was judged; 0 before any was."""
        return self._matchness

    @property
    def judged(self) -> int:
        """Number of candidates judged so far."""
        return len(self._seen)

    @property
    def finished(self) -> bool:
        settings = self.settings
        return (
            self._matchness > settings.max_score
            or self._without_gain > settings.max_tolerance
            or self.judged >= settings.max_candidates
        )

    def observe(self, round: Round) -> None:
        """See ``SkipSetSearch.observe``."""
        self._generated = round.generated

    def advance(self, session: TextSession) -> None:
        """Judges one candidate over the last generated tokens, if there are enough of them."""
        window = self.settings.context_window
        if self.finished or self._generated <= window + 1 or len(session) <= window:
            return
        candidate = self.propose()
        records = replay_records(session, candidate, len(session) - window)
        if records is not None:
            self.judge(candidate, matchness(records))

    def propose(self) -> LayerMask:
        """The next candidate; the same one until it is judged."""
        n, size = candidates(self.n_layer), self.settings.size(self.n_layer)
        number = self.judged + 1
        seed = self.settings.seed + number
        if number % self.settings.bayes_interval == 0 and self._seen:
            sets = np.stack([members(mask, self.n_layer) for mask, _ in self._seen])
            scores = [score for _, score in self._seen]
            process = GaussianProcess(sets, scores, self.settings.noise)
            chosen = np.flatnonzero(suggest(process, n, size, self.settings.kappa, seed))
        else:
            chosen = np.random.default_rng(seed).choice(n, size, replace=False)
        return mask_of(map(int, chosen), self.n_layer)

    def judge(self, candidate: LayerMask, score: float) -> None:
        """Takes in a candidate's matchness."""
        self._seen.append((candidate, score))
        if score > self._matchness:
            self._mask, self._matchness = candidate, score
            self._without_gain = 0
        else:
            self._without_gain += 1

    def state(self) -> dict[str, Any]:
        """Everything learned so far, JSON-able; ``from_state`` restores it exactly."""
        return _State(
            _STATE_KIND,
            self.n_layer,
            SavedMask.of(self._mask),
            self._matchness,
            self._without_gain,
            [(_packed(mask, self.n_layer), score) for mask, score in self._seen],
        ).to_json()

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], n_layer: int, settings: SwiftSettings | None = None
    ) -> SwiftSearch:
        """A search that goes on where ``state`` was taken.

        Raises:
            BadInput: not a state of this search for a model of n_layer layers.
        """
        search = cls(n_layer, settings)
        saved = _State.from_json(state)
        saved.check(_STATE_KIND, n_layer)
        search._mask = saved.mask.mask(n_layer)
        search._matchness = saved.matchness
        search._without_gain = saved.without_gain
        search._seen = [(_unpacked(packed, n_layer), score) for packed, score in saved.seen]
        return search


def _packed(mask: LayerMask, n_layer: int) -> str:
    """A set in hexadecimal digits: one bit for each candidate, the first one lowest."""
    return f"{sum(1 << int(i) for i in np.flatnonzero(members(mask, n_layer))):x}"


def _unpacked(packed: str, n_layer: int) -> LayerMask:
    bits = int(packed, 16)
    if bits >> candidates(n_layer):
        raise UnusableState(f"{packed!r} is no set of a model of {n_layer} layers")
    return mask_of((i for i in range(candidates(n_layer)) if bits >> i & 1), n_layer)
