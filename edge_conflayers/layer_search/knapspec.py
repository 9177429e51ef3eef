"""KnapSpec (arXiv 2602.20217): which sub-layers to skip, and how many tokens to draft, as a
knapsack filled by dynamic programming over the full model's states.

The paper measures an attention's cost as a function of the context and an MLP's as a constant, and
searches after every round over the round's tokens. One search here costs about two steps over
`levels` times `tokens` tokens, and building two graphs a layer; how often is a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_conflayers.costs.model import CostsAtContext, StepCosts
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.masks import mask_from_state, mask_state
from edge_conflayers.layer_search.objective import expected_speed
from edge_conflayers.layer_search.paths import Part, Path, RunLayer, States, best_paths
from edge_conflayers.layer_search.states import NoRoom, StateRunner

_STATE_KIND = "knapspec"


@dataclass(frozen=True)
class KnapSpecSettings:
    """Raises BadInput when a value is out of its range."""

    threshold: float = 0.5
    """Paths less similar than this to the full model are given up."""
    most_saved: float = 0.6
    """Share of all sub-layers' cost that may be skipped."""
    levels: int = 16
    """Amounts saved that are told apart; of sets that save as much, the most similar is kept."""
    tokens: int = 4
    """Last tokens of the text whose states are looked at."""
    interval: int = 64
    """Rounds from one search to the next; the paper's is 1."""
    stop_threshold: float = 0.0
    """A draft stops at the token whose top-1 probability is under this."""
    max_draft: int = 10
    """Most tokens drafted in a round."""

    def __post_init__(self) -> None:
        if not (
            -1.0 <= self.threshold <= 1.0
            and 0.0 < self.most_saved <= 1.0
            and min(self.levels, self.tokens, self.interval, self.max_draft) >= 1
            and 0.0 <= self.stop_threshold <= 1.0
        ):
            raise BadInput(
                f"{self} makes no sense: give a share above 0 and up to 1, thresholds up to 1, and"
                " counts of at least 1"
            )


@dataclass(frozen=True)
class Choice:
    """A skip set with a draft length, and the speed expected of them, over plain decoding's."""

    mask: LayerMask
    gamma: int
    speed: float


def sublayers(n_layer: int, attention: float, mlp: float) -> list[Part]:
    """Every sub-layer in order, with what it costs in full one-token steps."""
    return [
        part
        for layer in range(n_layer)
        for part in (Part(layer, "attention", attention), Part(layer, "mlp", mlp))
    ]


def knapsack(
    start: States, parts: Sequence[Part], run_layer: RunLayer, settings: KnapSpecSettings
) -> list[Path]:
    """The most similar path for each amount saved, the full model's first.

    start: float32 [tokens, width], what enters the first sub-layer.
    """
    most = settings.most_saved * sum(part.saves for part in parts)
    return best_paths(
        start,
        parts,
        run_layer,
        most=most,
        unit=most / settings.levels,
        threshold=settings.threshold,
    )


def choose(
    found: Sequence[tuple[LayerMask, float, float]],
    verify: Callable[[int], float],
    max_draft: int,
) -> Choice:
    """The set and length with the most expected tokens a time; an empty mask and length 0 if
    nothing is faster than plain decoding.

    found: of each set its mask, what it saves of a one-token step, and its acceptance alpha.
    """
    best = Choice(NO_MASK, 0, 1.0)
    for mask, saved, alpha in found:
        for gamma in range(1, max_draft + 1):
            speed = expected_speed(alpha, gamma, max(0.0, 1.0 - saved), verify)
            if mask and speed > best.speed:
                best = Choice(mask, gamma, speed)
    return best


class KnapSpecSearch:
    """The published search (a `SkipSetSearch`), which also says how many tokens to draft. Drafts
    nothing before its first search, nor where no set is expected to be faster than plain decoding.
    """

    finished = False

    def __init__(
        self, n_layer: int, costs: StepCosts, settings: KnapSpecSettings | None = None
    ) -> None:
        self.settings = settings or KnapSpecSettings()
        self.n_layer = n_layer
        self.costs = costs
        self.choice = Choice(NO_MASK, 0, 1.0)
        self._wait = 0

    @property
    def mask(self) -> LayerMask:
        """See `SkipSetSearch.mask`."""
        return self.choice.mask

    @property
    def draft_length(self) -> int:
        """Tokens to draft in a round."""
        return self.choice.gamma

    def observe(self, round: Round) -> None:
        """See `SkipSetSearch.observe`."""
        self._wait -= 1

    def advance(self, session: Session) -> None:
        """Chooses anew, if it is time to and the cache has room."""
        if self._wait > 0 or len(session) <= self.settings.tokens:
            return
        here = CostsAtContext(self.costs, len(session))
        parts = sublayers(self.n_layer, here.attention, here.mlp)
        runner = StateRunner(session, self.settings.tokens)
        try:
            full, *paths = knapsack(runner.embeddings(), parts, runner.run, self.settings)
            self.choice = self._choose(full, paths, parts, runner, here)
        except NoRoom:
            return
        self._wait = self.settings.interval

    def _choose(
        self,
        full: Path,
        paths: Sequence[Path],
        parts: Sequence[Part],
        runner: StateRunner,
        costs: CostsAtContext,
    ) -> Choice:
        drawn = runner.tokens(np.stack([path.states for path in (full, *paths)]))
        wanted = [token for token, _ in drawn[0]]
        found = []
        for path, tokens in zip(paths, drawn[1:], strict=True):
            agree = sum(token == want for (token, _), want in zip(tokens, wanted, strict=True))
            found.append((path.mask(parts), path.saved, agree / len(wanted)))
        return choose(found, costs.v, self.settings.max_draft)

    def state(self) -> dict[str, Any]:
        """See `SkipSetSearch.state`."""
        return {
            "kind": _STATE_KIND,
            "n_layer": self.n_layer,
            "mask": mask_state(self.choice.mask),
            "gamma": self.choice.gamma,
            "speed": self.choice.speed,
        }

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        n_layer: int,
        costs: StepCosts,
        settings: KnapSpecSettings | None = None,
    ) -> KnapSpecSearch:
        """A search that goes on where ``state`` was taken.

        Raises BadInput when the state is not one of this search for a model of n_layer layers.
        """
        search = cls(n_layer, costs, settings)
        mask = mask_from_state(state, _STATE_KIND, n_layer)
        try:
            search.choice = Choice(mask, int(state["gamma"]), float(state["speed"]))
        except (KeyError, TypeError, ValueError):
            raise BadInput(
                "the saved knapspec state has no draft length: start anew with --fresh"
            ) from None
        return search
