"""KnapSpec (arXiv 2602.20217): skip set and draft length, as a knapsack.

The knapsack is filled by dynamic programming over the full model's hidden states. Its weights are
the costs of sub-layers, an attention's growing with the context. The paper searches after every
round over the round's tokens. One search here costs about two steps over ``levels * tokens``
tokens, plus building two graphs for each layer; how often is a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_conflayers.costs.model import CostsAtContext, StepCosts
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.masks import SavedMask, SearchState
from edge_conflayers.layer_search.objective import expected_speed
from edge_conflayers.layer_search.published.layer_runner import LayerRunner, NoRoom
from edge_conflayers.layer_search.published.similar_paths import (
    Part,
    Path,
    RunLayer,
    States,
    best_paths,
)
from edge_conflayers.profiles.saved_state import Count, Positive

_STATE_KIND = "knapspec"


@dataclass(frozen=True)
class KnapSpecSettings:
    """The method's settings.

    Raises:
        BadInput: a value is out of its range.
    """

    threshold: float = 0.5
    """Paths less similar than this to the full model are pruned. As published."""
    most_saved: float = 0.6
    """Share of all sub-layers' cost that may be skipped. Not tuned."""
    levels: int = 16
    """Steps from saving nothing to ``most_saved``; of the paths that save as many steps, the most
    similar one is kept. Not tuned."""
    tokens: int = 4
    """Number of last tokens of the text whose states are followed. Not tuned."""
    interval: int = 64
    """Rounds from one search to the next; the paper's is 1. Not tuned."""
    stop_threshold: float = 0.0
    """A draft stops at the token whose top-1 probability is under this; never, as published, since
    the search chooses the length."""
    max_draft: int = 10
    """Most tokens drafted in a round. Not tuned."""

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
    """A skip set and a draft length.

    Attributes:
        mask: the skip set.
        gamma: tokens to draft in a round.
        speed: expected speed over plain decoding.
    """

    mask: LayerMask
    gamma: int
    speed: float


def sublayers(n_layer: int, attention: float, mlp: float) -> list[Part]:
    """Every sub-layer in the order of the model, with its cost in full one-token steps."""
    return [
        part
        for layer in range(n_layer)
        for part in (Part(layer, "attention", attention), Part(layer, "mlp", mlp))
    ]


def knapsack(
    start: States, parts: Sequence[Part], run_layer: RunLayer, settings: KnapSpecSettings
) -> list[Path]:
    """The most similar path for each amount saved, the full model's path first.

    Args:
        start: float32 [tokens, width], what enters the first sub-layer.
        parts: as ``sublayers`` gives them.
        run_layer: runs states through one sub-layer.
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
    """The set and length with the highest expected speed; an empty mask and length 0 if nothing is
    faster than plain decoding.

    Args:
        found: the mask of each set, what it saves of a one-token step, and its acceptance alpha.
        verify: V(n).
        max_draft: longest draft.
    """
    best = Choice(NO_MASK, 0, 1.0)
    for mask, saved, alpha in found:
        for gamma in range(1, max_draft + 1):
            speed = expected_speed(alpha, gamma, max(0.0, 1.0 - saved), verify)
            if mask and speed > best.speed:
                best = Choice(mask, gamma, speed)
    return best


class _State(SearchState):
    mask: SavedMask
    gamma: Count
    speed: Positive


class KnapSpecSearch:
    """The published search (a ``PacedSearch``: it also says how many tokens to draft). Drafts
    nothing before it has first searched, nor where no set is expected to be faster than plain
    decoding.

    Args:
        n_layer: the model's layers.
        costs: the weights of the knapsack, and V(n).
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
        """See ``SkipSetSearch.mask``."""
        return self.choice.mask

    @property
    def draft_length(self) -> int:
        """See ``PacedSearch.draft_length``."""
        return self.choice.gamma

    def observe(self, round: Round) -> None:
        """See ``SkipSetSearch.observe``."""
        self._wait -= 1

    def advance(self, session: TextSession) -> None:
        """Chooses set and length anew, if it is time to and the cache has room."""
        if self._wait > 0 or len(session) <= self.settings.tokens:
            return
        here = CostsAtContext(self.costs, len(session))
        parts = sublayers(self.n_layer, here.attention, here.mlp)
        runner = LayerRunner(session, self.settings.tokens)
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
        runner: LayerRunner,
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
        choice = self.choice
        mask = SavedMask.of(choice.mask)
        return _State(_STATE_KIND, self.n_layer, mask, choice.gamma, choice.speed).to_json()

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        n_layer: int,
        costs: StepCosts,
        settings: KnapSpecSettings | None = None,
    ) -> KnapSpecSearch:
        """A search that goes on where ``state`` was taken.

        Raises:
            BadInput: not a state of this search for a model of n_layer layers.
        """
        search = cls(n_layer, costs, settings)
        saved = _State.from_json(state)
        saved.check(_STATE_KIND, n_layer)
        search.choice = Choice(saved.mask.mask(n_layer), saved.gamma, saved.speed)
        return search
