"""CLaSp (arXiv 2505.24196): dynamic programming over the full model's hidden states.

After a verification, the layers to skip are chosen anew for the last accepted token. One search
costs about a step over as many tokens as layers may be skipped, plus building one graph for each
layer. The paper searches after every round; here that is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.masks import SavedMask, SearchState
from edge_conflayers.layer_search.published.layer_runner import LayerRunner, NoRoom
from edge_conflayers.layer_search.published.similar_paths import (
    Part,
    RunLayer,
    States,
    best_paths,
)

_STATE_KIND = "clasp"


@dataclass(frozen=True)
class ClaspSettings:
    """The method's settings.

    Raises:
        BadInput: a value is out of its range.
    """

    skip_ratio: float = 0.4
    """Share of the layers that is skipped: the budget M. Not tuned."""
    interval: int = 32
    """Rounds from one search to the next; the paper's is 1. Not tuned."""
    stop_threshold: float = 0.7
    """A draft stops at the token whose top-1 probability is under this. Not tuned."""
    max_draft: int = 10
    """Most tokens drafted in a round. Not tuned."""

    def __post_init__(self) -> None:
        if not (
            0.0 < self.skip_ratio < 1.0
            and self.interval >= 1
            and 0.0 <= self.stop_threshold <= 1.0
            and self.max_draft >= 1
        ):
            raise BadInput(
                f"{self} makes no sense: give a ratio between 0 and 1, a threshold from 0 to 1,"
                " and an interval and a length of at least 1"
            )


def choose_layers(start: States, n_layer: int, budget: int, run_layer: RunLayer) -> tuple[int, ...]:
    """The published choice: the ``budget`` layers whose skipping changes the direction of the last
    hidden states least.

    Args:
        start: float32 [tokens, width], what enters the first layer; in the paper, of one token.
        n_layer: the model's layers.
        budget: layers to skip, from 0 to n_layer.
        run_layer: runs states through one layer.
    """
    parts = [Part(layer, "layer") for layer in range(n_layer)]
    paths = best_paths(start, parts, run_layer, most=budget, least=budget)
    return paths[-1].skipped


class _State(SearchState):
    mask: SavedMask


class ClaspSearch:
    """The published search (a ``SkipSetSearch``). Drafts nothing before it has first searched.

    Args:
        n_layer: the model's layers.

    Raises:
        BadInput: a model with too few layers to skip one.
    """

    finished = False

    def __init__(self, n_layer: int, settings: ClaspSettings | None = None) -> None:
        self.settings = settings or ClaspSettings()
        self.n_layer = n_layer
        self.budget = int(n_layer * self.settings.skip_ratio)
        if self.budget < 1:
            raise BadInput(
                f"{self.settings.skip_ratio:g} of the model's {n_layer} layers is not one layer to"
                " skip: use --method plain"
            )
        self._mask = NO_MASK
        self._wait = 0

    @property
    def mask(self) -> LayerMask:
        """See ``SkipSetSearch.mask``."""
        return self._mask

    def observe(self, round: Round) -> None:
        """See ``SkipSetSearch.observe``."""
        self._wait -= 1

    def advance(self, session: TextSession) -> None:
        """Chooses the layers anew, if it is time to and the cache has room."""
        if self._wait > 0 or len(session) < 2:
            return
        runner = LayerRunner(session, 1)
        try:
            chosen = choose_layers(runner.embeddings(), self.n_layer, self.budget, runner.run)
        except NoRoom:
            return
        self._mask = LayerMask.layers(chosen)
        self._wait = self.settings.interval

    def state(self) -> dict[str, Any]:
        """See `SkipSetSearch.state`."""
        return _State(_STATE_KIND, self.n_layer, SavedMask.of(self._mask)).to_json()

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], n_layer: int, settings: ClaspSettings | None = None
    ) -> ClaspSearch:
        """A search that goes on where ``state`` was taken.

        Raises:
            BadInput: not a state of this search for a model of n_layer layers.
        """
        search = cls(n_layer, settings)
        saved = _State.from_json(state)
        saved.check(_STATE_KIND, n_layer)
        search._mask = saved.mask.mask(n_layer)
        return search
