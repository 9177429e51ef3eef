"""The methods that a user can name, and how each one's drafter is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edge_conflayers.drafters import Drafter
from edge_conflayers.drafters.auto import AutoDrafter
from edge_conflayers.drafters.draft_model import DraftModelDrafter, check_vocabulary
from edge_conflayers.drafters.early_exit import (
    DelDrafter,
    DelSettings,
    LayerSkipDrafter,
    LayerSkipSettings,
)
from edge_conflayers.drafters.free import FreeDrafter
from edge_conflayers.drafters.layers import LayersDrafter, PacedLayersDrafter
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.measured import MeasuredDrafter
from edge_conflayers.drafters.recycling import RecyclingSource
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.kinds import SKIP_SETS_PROFILE, SkipSets
from edge_conflayers.model import Model
from edge_conflayers.prices import MEASURED_AT, measure_prices
from edge_conflayers.search import SkipSetSearch
from edge_conflayers.search.by_kind import SearchByKind
from edge_conflayers.search.clasp import ClaspSearch, ClaspSettings
from edge_conflayers.search.conflayers import ConfLayersSearch, ConfLayersSettings
from edge_conflayers.search.expected import LayerCosts, costs_by_weights
from edge_conflayers.search.knapspec import KnapSpecSearch, KnapSpecSettings
from edge_conflayers.search.measured import MeasuredSettings
from edge_conflayers.search.prices import AtContext, guessed_prices
from edge_conflayers.search.swift import SwiftSearch, SwiftSettings
from edge_conflayers.session import Session
from edge_conflayers.vocabulary import DraftVocabulary, typical_size

DRAFT_MODEL = "draft-model"


class Method(Protocol):
    """A drafter together with what it has learned."""

    @property
    def drafter(self) -> Drafter | None: ...

    def prepare(self, session: Session) -> None:
        """Called before ``drafter`` is asked for. Measures what it needs to know of the machine, if
        it does not know it yet; clears the session."""
        ...

    def settings(self) -> dict[str, Any]:
        """What distinguishes its profile from others': JSON-able."""
        ...

    def state(self) -> dict[str, Any] | None:
        """What it has learned so far, to be kept in a profile: JSON-able; None for nothing."""
        ...

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            BadInput: not a state of this method and model.
        """
        ...

    def close(self) -> None:
        """Frees what it has opened; the method is not used afterwards."""
        ...


@dataclass(frozen=True)
class MethodOptions:
    """What a user can give to a method besides the model.

    Attributes:
        draft_model: drafts in ``draft-model``; stays open as long as the method.
    """

    draft_model: Model | None = None


class _Simple:
    """What most methods have in common."""

    def prepare(self, session: Session) -> None:
        """There is nothing to measure."""

    def close(self) -> None:
        pass


class _Forgetful(_Simple):
    """What methods have in common that learn nothing."""

    def settings(self) -> dict[str, Any]:
        return {}

    def state(self) -> None:
        return None

    def resume(self, state: Mapping[str, Any]) -> None:
        pass


class Plain(_Forgetful):
    """Plain decoding: one step of the full model for each token."""

    drafter = None

    def __init__(self, model: Model, options: MethodOptions) -> None:
        pass


class Lookup(_Forgetful):
    """Drafts what followed when the text's last tokens occurred before (SuffixDecoding, arXiv
    2411.04975)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self.drafter = FreeDrafter(LookupSource())


class Recycling(_Simple):
    """Drafts from what the full model held likely after the same tokens before (Token Recycling,
    arXiv 2408.08696)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self._n_vocab = model.n_vocab
        self._start(RecyclingSource())

    def _start(self, source: RecyclingSource) -> None:
        self._source = source
        self.drafter = FreeDrafter(source)

    def settings(self) -> dict[str, Any]:
        return {"method": "recycling"}

    def state(self) -> dict[str, Any]:
        return self._source.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._start(RecyclingSource.from_state(state, self._n_vocab))


class DraftModel(_Forgetful):
    """Drafts with a second model (Leviathan et al., arXiv 2211.17192)."""

    def __init__(self, model: Model, options: MethodOptions) -> None:
        if options.draft_model is None:
            raise BadInput(
                f"method '{DRAFT_MODEL}' needs a second model; give it with --draft-model"
            )
        check_vocabulary(model, options.draft_model)
        self.drafter = DraftModelDrafter(options.draft_model)

    def close(self) -> None:
        self.drafter.close()


class _Searched(_Simple):
    """What methods have in common that draft with what a search drops, and keep its state."""

    _name: str
    _settings: ConfLayersSettings | SwiftSettings | ClaspSettings | KnapSpecSettings
    _drafter_kind: type[LayersDrafter] = LayersDrafter
    drafter: LayersDrafter

    def _use(self, search: SkipSetSearch) -> None:
        self.drafter = self._drafter_kind(
            search,
            stop_probability=self._settings.stop_threshold,
            max_draft=self._settings.max_draft,
        )

    def settings(self) -> dict[str, Any]:
        return {"method": self._name, **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()


class ConfLayers(_Searched):
    """Drafts with the layers dropped that the published ConfLayers search finds (arXiv
    2604.14612)."""

    _name = "conflayers"
    _settings: ConfLayersSettings

    def __init__(
        self, model: Model, options: MethodOptions, settings: ConfLayersSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or ConfLayersSettings()
        self._use(ConfLayersSearch(model.n_layer, model.architecture, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        model = self._model
        self._use(
            ConfLayersSearch.from_state(
                dict(state), model.n_layer, model.architecture, self._settings
            )
        )


class Swift(_Searched):
    """Drafts with the sub-layers dropped that the published SWIFT search finds (arXiv
    2410.06916)."""

    _name = "swift"
    _settings: SwiftSettings

    def __init__(
        self, model: Model, options: MethodOptions, settings: SwiftSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or SwiftSettings()
        self._use(SwiftSearch(model.n_layer, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(SwiftSearch.from_state(state, self._model.n_layer, self._settings))


class Clasp(_Searched):
    """Drafts with the layers dropped that CLaSp chooses for the text at hand (arXiv 2505.24196)."""

    _name = "clasp"
    _settings: ClaspSettings

    def __init__(
        self, model: Model, options: MethodOptions, settings: ClaspSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or ClaspSettings()
        self._use(ClaspSearch(model.n_layer, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(ClaspSearch.from_state(state, self._model.n_layer, self._settings))


class KnapSpec(_Searched):
    """Drafts with the sub-layers dropped, and for the length, that KnapSpec chooses for the text at
    hand (arXiv 2602.20217).

    Args:
        costs: what to choose by; the weights' sizes if not given.
    """

    _name = "knapspec"
    _settings: KnapSpecSettings
    _drafter_kind = PacedLayersDrafter

    def __init__(
        self,
        model: Model,
        options: MethodOptions,
        settings: KnapSpecSettings | None = None,
        costs: LayerCosts | None = None,
    ) -> None:
        self._model = model
        self._settings = settings or KnapSpecSettings()
        self._costs = costs or costs_by_weights(model)
        self._use(KnapSpecSearch(model.n_layer, self._costs, self._settings))

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(
            KnapSpecSearch.from_state(state, self._model.n_layer, self._costs, self._settings)
        )


class LayerSkip(_Forgetful):
    """Drafts by one early exit and verifies from there (LayerSkip, arXiv 2404.16710)."""

    def __init__(
        self, model: Model, options: MethodOptions, settings: LayerSkipSettings | None = None
    ) -> None:
        self._settings = settings or LayerSkipSettings()
        self.drafter = LayerSkipDrafter(model.n_layer, self._settings)

    def settings(self) -> dict[str, Any]:
        return {"method": "layerskip", **asdict(self._settings)}


class Measured(_Simple):
    """Drafts with the sub-layers dropped that are predicted to be fastest on this machine, by kind
    of prompt; what it learns it shares with ``tune``."""

    drafter: MeasuredDrafter

    def __init__(
        self, model: Model, options: MethodOptions, settings: MeasuredSettings | None = None
    ) -> None:
        self._model = model
        self._settings = settings or MeasuredSettings()
        self._use(SkipSets(model.n_layer))

    def _use(self, sets: SkipSets) -> None:
        prices = sets.prices or guessed_prices(self._model)
        vocabulary = DraftVocabulary(self._model)
        savings = sets.savings or {}
        vocabulary.size = typical_size(savings, vocabulary, prices, 0)
        at_context = AtContext(prices, saved_seconds=savings.get(vocabulary.size, 0.0))
        search = SearchByKind(sets, at_context, self._settings)
        self.drafter = MeasuredDrafter(search, vocabulary)

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        return self.drafter.search.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self._use(SkipSets.from_json(state, self._model.n_layer))


class Del(_Simple):
    """Drafts by the early exit, and for the length, that DEL chooses each round (arXiv
    2504.05598)."""

    def __init__(
        self, model: Model, options: MethodOptions, settings: DelSettings | None = None
    ) -> None:
        self._settings = settings or DelSettings()
        self.drafter = DelDrafter(model.n_layer, self._settings)

    def settings(self) -> dict[str, Any]:
        return {"method": "del", **asdict(self._settings)}

    def state(self) -> dict[str, Any]:
        return self.drafter.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        self.drafter.resume(state)


class Auto(_Simple):
    """Chooses each round among lookups, recycled tokens, dropped layers and plain decoding, by
    expected tokens per second; what it learns of skip sets it shares with ``tune``."""

    _NAME = "auto"

    def __init__(self, model: Model, options: MethodOptions) -> None:
        self._model = model
        self._sets = SkipSets(model.n_layer)
        self._drafter: AutoDrafter | None = None

    @property
    def drafter(self) -> AutoDrafter | None:
        """None, for plain decoding, before ``prepare``, and for models that cannot take steps back
        or be measured."""
        return self._drafter

    def prepare(self, session: Session) -> None:
        if self._drafter is None:
            try:
                # The user's session may be short.
                with Session(self._model, n_ctx=MEASURED_AT, threads=session.threads) as own:
                    self._sets.prices = measure_prices(own)
            except EdgeConflayersError:
                return  # a recurrent model, or no memory
            self._drafter = AutoDrafter(self._model, self._sets)
        self._drafter.prepare(session)

    def settings(self) -> dict[str, Any]:
        return dict(SKIP_SETS_PROFILE)

    def state(self) -> dict[str, Any]:
        if self._drafter is not None:
            self._sets.others[self._NAME] = self._drafter.state()
        return self._sets.to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        sets = SkipSets.from_json(state, self._model.n_layer)
        drafter = AutoDrafter(self._model, sets) if sets.prices is not None else None
        if drafter is not None and self._NAME in sets.others:
            drafter.resume(sets.others[self._NAME])
        self._sets, self._drafter = sets, drafter


METHODS: dict[str, Callable[[Model, MethodOptions], Method]] = {
    "auto": Auto,
    "plain": Plain,
    "conflayers": ConfLayers,
    "swift": Swift,
    "measured": Measured,
    "clasp": Clasp,
    "knapspec": KnapSpec,
    "layerskip": LayerSkip,
    "del": Del,
    "lookup": Lookup,
    "recycling": Recycling,
    DRAFT_MODEL: DraftModel,
}


SHARING_SKIP_SETS = ("auto", "measured")
"""Methods whose state is the profile that ``tune`` writes."""


def make_method(name: str, model: Model, options: MethodOptions | None = None) -> Method:
    """The method of that name for a model, knowing nothing yet.

    Raises:
        BadInput: there is no such method, the model is too small for it, or an option that it needs
            is missing or of no use to it.
    """
    if name not in METHODS:
        raise BadInput(f"there is no method '{name}'; choose from {', '.join(METHODS)}")
    return METHODS[name](model, options or MethodOptions())
