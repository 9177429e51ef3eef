"""The published methods, each as its paper has it: what ``auto`` is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.decoding.drafter import Drafter
from edge_conflayers.drafters.draft_model import DraftModelDrafter
from edge_conflayers.drafters.dssd import DssdDrafter, DssdSettings
from edge_conflayers.drafters.dynamic_exit import DelDrafter, DelSettings
from edge_conflayers.drafters.early_exit import LayerSkipDrafter, LayerSkipSettings
from edge_conflayers.drafters.free import FreeDrafter
from edge_conflayers.drafters.layers import LayersDrafter, PacedLayersDrafter
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.recycling import RecyclingSource
from edge_conflayers.drafters.second_model import check_vocabulary
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search import SkipSetSearch
from edge_conflayers.layer_search.published.clasp import ClaspSearch, ClaspSettings
from edge_conflayers.layer_search.published.conflayers import ConfLayersSearch
from edge_conflayers.layer_search.published.conflayers_selection import ConfLayersSettings
from edge_conflayers.layer_search.published.knapspec import KnapSpecSearch, KnapSpecSettings
from edge_conflayers.layer_search.published.swift import SwiftSearch, SwiftSettings
from edge_conflayers.methods.method import (
    Learner,
    Method,
    MethodOptions,
    Resumable,
    State,
    Stateless,
)


def plain(model: LanguageModel, options: MethodOptions) -> Method:
    """One step of the full model for each token."""
    return Stateless(None)


def lookup(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts what followed when the text's last tokens occurred before (SuffixDecoding, arXiv
    2411.04975)."""
    return Stateless(FreeDrafter(LookupSource()))


def recycling(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts the full model's likeliest tokens after the same tokens before (Token Recycling, arXiv
    2408.08696)."""

    def make(state: State | None) -> tuple[Drafter, Learner]:
        source = (
            RecyclingSource() if state is None else RecyclingSource.from_state(state, model.n_vocab)
        )
        return FreeDrafter(source), source

    return Resumable({"method": "recycling"}, make)


def draft_model(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts with a second model (Leviathan et al., arXiv 2211.17192)."""
    return Stateless(DraftModelDrafter(required_draft_model("draft-model", model, options)))


def conflayers(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts with the layers dropped that ConfLayers finds (arXiv 2604.14612)."""
    settings = ConfLayersSettings()
    n_layer, family = model.n_layer, model.architecture

    def search(state: State | None) -> SkipSetSearch:
        if state is None:
            return ConfLayersSearch(n_layer, family, settings)
        return ConfLayersSearch.from_state(state, n_layer, family, settings)

    return _layers("conflayers", settings, search, leaf_probability=settings.leaf_probability)


def swift(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts with the sub-layers dropped that SWIFT finds (arXiv 2410.06916)."""
    settings = SwiftSettings()

    def search(state: State | None) -> SkipSetSearch:
        if state is None:
            return SwiftSearch(model.n_layer, settings)
        return SwiftSearch.from_state(state, model.n_layer, settings)

    return _layers("swift", settings, search)


def clasp(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts with the layers dropped that CLaSp chooses for the text at hand (arXiv 2505.24196)."""
    settings = ClaspSettings()

    def search(state: State | None) -> SkipSetSearch:
        if state is None:
            return ClaspSearch(model.n_layer, settings)
        return ClaspSearch.from_state(state, model.n_layer, settings)

    return _layers("clasp", settings, search)


def knapspec(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts with the sub-layers dropped, and for the length, that KnapSpec chooses for the text at
    hand (arXiv 2602.20217), by costs that go by the weights' sizes."""
    settings, costs = KnapSpecSettings(), costs_by_weights(model)

    def make(state: State | None) -> tuple[Drafter, Learner]:
        search = (
            KnapSpecSearch(model.n_layer, costs, settings)
            if state is None
            else KnapSpecSearch.from_state(state, model.n_layer, costs, settings)
        )
        drafter = PacedLayersDrafter(
            search, stop_probability=settings.stop_threshold, max_draft=settings.max_draft
        )
        return drafter, search

    return Resumable({"method": "knapspec", **asdict(settings)}, make)


def layerskip(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts by one early exit and verifies from there (LayerSkip, arXiv 2404.16710)."""
    settings = LayerSkipSettings()
    drafter = LayerSkipDrafter(model.n_layer, settings)
    return Stateless(drafter, {"method": "layerskip", **asdict(settings)})


def del_(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts by the early exit, and for the length, that DEL chooses each round (arXiv
    2504.05598)."""
    settings = DelSettings()

    def make(state: State | None) -> tuple[Drafter, Learner]:
        drafter = DelDrafter(model.n_layer, settings)
        if state is not None:
            drafter.resume(state)
        return drafter, drafter

    return Resumable({"method": "del", **asdict(settings)}, make)


def dssd(model: LanguageModel, options: MethodOptions) -> Method:
    """Drafts by taught exits, each token by the first that is sure of it, and verifies from there
    (DSSD, arXiv 2407.21082)."""
    if options.exits is None:
        raise BadInput(
            f"method 'dssd' needs exits that are taught for {model.path}; run"
            f" `edge-conflayers tune {model.path} --exits` first"
        )
    settings = DssdSettings() if options.epsilon is None else DssdSettings(options.epsilon)
    return Stateless(DssdDrafter(model, options.exits, settings), {"method": "dssd"})


def _layers(
    name: str,
    settings: ConfLayersSettings | SwiftSettings | ClaspSettings,
    make_search: Callable[[State | None], SkipSetSearch],
    *,
    leaf_probability: float | None = None,
) -> Method:
    """Drafts under the mask of a search."""

    def make(state: State | None) -> tuple[Drafter, Learner]:
        search = make_search(state)
        drafter = LayersDrafter(
            search,
            stop_probability=settings.stop_threshold,
            max_draft=settings.max_draft,
            leaf_probability=leaf_probability,
        )
        return drafter, search

    return Resumable({"method": name, **asdict(settings)}, make)


def required_draft_model(
    method: str, model: LanguageModel, options: MethodOptions
) -> LanguageModel:
    """The second model that a method drafts with.

    Raises:
        BadInput: there is none, or it has other tokens.
    """
    if options.draft_model is None:
        raise BadInput(f"method '{method}' needs a second model; give it with --draft-model")
    check_vocabulary(model, options.draft_model)
    return options.draft_model
