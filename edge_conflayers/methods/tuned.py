"""The methods that `tune` makes faster: they start from its skip sets and keep their own there."""

from __future__ import annotations

import logging
from typing import Any

from edge_conflayers.controller.auto import AutoDrafter
from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.costs.measure import measure_costs, session_to_measure_in
from edge_conflayers.costs.model import CostsAtContext
from edge_conflayers.drafters.bridged import BridgedDrafter
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary, measure_savings, typical_size
from edge_conflayers.drafters.measured_layers import MeasuredDrafter
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import TextSession
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.layer_search.measured import MeasuredSettings
from edge_conflayers.layer_search.search_by_kind import SearchByKind
from edge_conflayers.layer_search.skip_sets import SKIP_SETS_PROFILE, SkipSets
from edge_conflayers.methods.method import Method, MethodOptions, State, Stateless
from edge_conflayers.methods.published import required_draft_model
from edge_conflayers.next_state.head import NextStateHead

_AUTO = "auto"  # the name of its state in the profile, with a second model or without
_log = logging.getLogger(__name__)
_QUICK_REPEAT = 3  # of each draft vocabulary's size, before the first text; not tuned


class Auto:
    """Chooses each round who drafts by expected tokens per second: lookups, recycled tokens, the
    next-state head, the model without some layers, or nobody."""

    def __init__(
        self,
        model: LanguageModel,
        options: MethodOptions,
        *,
        draft_model: LanguageModel | None = None,
    ) -> None:
        self._model = model
        self._draft_model = draft_model
        self._next_state = options.next_state
        self._sets = SkipSets(model.n_layer)
        self._drafter: AutoDrafter | None = None

    @property
    def drafter(self) -> AutoDrafter | None:
        """None before ``prepare``, and where the model can only decode plainly: it cannot take
        steps back, or there is no memory to measure them in."""
        return self._drafter

    @property
    def head_pays(self) -> bool | None:
        """Whether asking a next-state head is worth its time here; None before that is known."""
        return None if self._drafter is None else self._drafter.head_pays

    def use_head(self, head: NextStateHead) -> None:
        """Asks this head from the next text on."""
        self._next_state = head
        if self._drafter is not None:
            self._drafter.use_head(head)

    def prepare(self, session: TextSession) -> None:
        """Measures what steps cost, if that is not known."""
        if self._drafter is None:
            try:
                with session_to_measure_in(self._model, session.threads) as own:
                    self._sets.costs = measure_costs(own)
            except EdgeConflayersError:
                return
            self._drafter = self._make_drafter(self._sets)
        self._drafter.prepare(session)

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        if self._drafter is not None:
            self._sets.others[_AUTO] = self._drafter.state()
        return self._sets.to_json()

    def resume(self, state: State) -> None:
        sets = SkipSets.from_json(state, self._model.n_layer)
        drafter = self._make_drafter(sets) if sets.costs is not None else None
        if drafter is not None and _AUTO in sets.others:
            drafter.resume(sets.others[_AUTO])
        self._sets, self._drafter = sets, drafter

    def _make_drafter(self, sets: SkipSets) -> AutoDrafter:
        return AutoDrafter(
            self._model, sets, draft_model=self._draft_model, next_state=self._next_state
        )

    def close(self) -> None:
        if self._drafter is not None:
            self._drafter.close()


def auto_draft_model(model: LanguageModel, options: MethodOptions) -> Auto:
    """``Auto`` with a second model among the drafters."""
    second = required_draft_model("auto-draft-model", model, options)
    return Auto(model, options, draft_model=second)


class Measured:
    """Drafts with the sub-layers dropped that are predicted to be fastest on this machine, by kind
    of prompt; searches on while it writes."""

    drafter: MeasuredDrafter

    def __init__(self, model: LanguageModel, options: MethodOptions) -> None:
        self._model = model
        self._use(SkipSets(model.n_layer))

    def prepare(self, session: TextSession) -> None:
        """Measures what steps cost and what draft vocabularies save, if that is not known."""
        sets = self.drafter.search.sets
        if sets.costs is not None and sets.savings is not None:
            return
        try:
            with session_to_measure_in(self._model, session.threads) as own:
                sets.costs = sets.costs or measure_costs(own)
                own.clear()
                vocabulary = DraftVocabulary(self._model)
                sets.savings = measure_savings(own, vocabulary, repeat=_QUICK_REPEAT)
        except EdgeConflayersError:
            return  # no memory: it goes by the weights' sizes
        self._use(sets)

    def _use(self, sets: SkipSets) -> None:
        costs = sets.costs or costs_by_weights(self._model)
        vocabulary = DraftVocabulary(self._model)
        savings = sets.savings or {}
        vocabulary.size = typical_size(savings, vocabulary, costs, 0)
        at_context = CostsAtContext(costs, saved_seconds=savings.get(vocabulary.size, 0.0))
        search = SearchByKind(sets, at_context, MeasuredSettings())
        self.drafter = MeasuredDrafter(search, vocabulary)

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()

    def resume(self, state: State) -> None:
        self._use(SkipSets.from_json(state, self._model.n_layer))

    def close(self) -> None:
        """There is nothing to free."""


def bridged(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts with a taught map in the place of half of the layers; decodes plainly until `tune` has
    taught one that is predicted to pay."""
    bridges, settings = options.bridges, {"method": "bridged"}
    if bridges is None or bridges.prediction.speed <= 1.0:
        why = "no bridge was taught" if bridges is None else "no bridge is faster here"
        _log.warning("%s: decoding plainly; teach one: edge-conflayers tune MODEL", why)
        return Stateless(None, settings)
    vocabulary = DraftVocabulary(model, size=bridges.vocabulary_size)
    vocabulary.expect(bridges.written)
    return Stateless(BridgedDrafter(bridges, vocabulary), settings)
