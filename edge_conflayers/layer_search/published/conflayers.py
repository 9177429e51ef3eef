"""ConfLayers (arXiv 2604.14612): skips whole layers whose confidence is low among neighbours.

The search, online, while text is being generated; ``conflayers_selection`` has its formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.masks import SearchState
from edge_conflayers.layer_search.published.conflayers_selection import (
    MIN_LAYERS,
    ConfLayersSettings,
    select_layers,
)
from edge_conflayers.profiles.saved_state import Count, Number, check_below, check_same

_STATE_KIND = "conflayers"


_Layers = list[Annotated[int, msgspec.Meta(ge=1)]]  # ascending


class _State(SearchState, rename={"lambda_": "lambda"}):
    family: str
    skip_set: _Layers
    best_set: _Layers
    best_count: Number
    lambda_: Number
    scores: list[Number]
    counts: list[Count]
    proposals: Count
    due: bool
    finished: bool

    def __post_init__(self) -> None:
        if any(layers != sorted(set(layers)) for layers in (self.skip_set, self.best_set)):
            raise ValueError("layers are not ascending and unique")
        if len(self.scores) != len(self.counts):
            raise ValueError("scores and counts differ in length")


class ConfLayersSearch:
    """The published online search (a ``SkipSetSearch``).

    It starts with the odd candidates. The first proposal is due as soon as the context window is
    full. A proposal with fewer than ``settings.smallest_set`` layers is replaced after the next
    round, so that lambda soon reaches a value that skips enough. Any other set is judged over
    ``settings.search_interval`` rounds, or given up halfway. The lists that it is judged by go on
    from one text to the next, because a short text alone never fills an interval.

    Args:
        n_layer: the model's layers.
        family: as for ``select_layers``.

    Raises:
        BadInput: a model with fewer than MIN_LAYERS layers.
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
        """The best set judged so far, or the one that the search stopped at; empty before."""
        return self._best_set

    @property
    def best_count(self) -> float:
        """Mean accepted tokens a round with ``best_set``; 0 before any was judged."""
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
        """Number of last generated tokens that a probe runs over."""
        return self.settings.context_window

    @property
    def finished(self) -> bool:
        """Whether the search has stopped; ``skip_set`` stays as it is from then on."""
        return self._finished

    @property
    def mask(self) -> LayerMask:
        """The skip set as a mask of whole layers."""
        return LayerMask.layers(self._skip_set)

    def observe(self, round: Round) -> None:
        """See ``SkipSetSearch.observe``."""
        self.observe_round(round.draft.chain_length, round.accepted, round.generated)

    def advance(self, session: TextSession) -> None:
        """Runs the probe over the last generated tokens when a proposal is due."""
        if not self.wants_probe or len(session) < self.context_window:
            return
        confidences = session.probe(session.tokens[-self.context_window :])
        if confidences is not None:
            self.propose(*confidences)

    def observe_round(self, drafted: int, accepted: int, tokens_generated: int) -> None:
        """Counts one finished round; not one that drafted nothing, which says nothing of the set.

        Args:
            drafted: tokens of the draft's first chain.
            accepted: tokens accepted, of that chain or of the leaves beside it.
            tokens_generated: tokens of the text after the round.
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
        """Chooses the next skip set by a probe over the last ``context_window`` tokens; does
        nothing once the search has finished.

        Args:
            confidence_attn, confidence_mlp: float [n_layer], the confidence of each layer's
                attention and MLP outputs; the first and the last layer's are ignored.

        Raises:
            ValueError: a wrong shape.
            EdgeConflayersError: numbers that are not finite.
        """
        attn = np.asarray(confidence_attn, dtype=np.float16)
        mlp = np.asarray(confidence_mlp, dtype=np.float16)
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
        return _State(
            _STATE_KIND,
            self.n_layer,
            self.family,
            list(self._skip_set),
            list(self._best_set),
            self._best_count,
            self._lambda,
            list(self._scores),
            list(self._counts),
            self._proposals,
            self._due,
            self._finished,
        ).to_json()

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        n_layer: int,
        family: str,
        settings: ConfLayersSettings | None = None,
    ) -> ConfLayersSearch:
        """A search that goes on where `state` was taken.

        Raises:
            BadInput: not a state of this search for a model of n_layer layers.
        """
        search = cls(n_layer, family, settings)
        saved = _State.from_json(state)
        saved.check(_STATE_KIND, n_layer)
        check_same("family", saved.family, family)
        check_below("layer", (*saved.skip_set, *saved.best_set), n_layer - 1)
        search._skip_set = tuple(saved.skip_set)
        search._best_set = tuple(saved.best_set)
        search._best_count = saved.best_count
        search._lambda = saved.lambda_
        search._scores = saved.scores
        search._counts = saved.counts
        search._proposals = saved.proposals
        search._due = saved.due
        search._finished = saved.finished
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
