"""Lookups, recycled tokens and dropped layers under one controller, text after text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_conflayers.controller import Controller
from edge_conflayers.draft import Draft, Round
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.recycling import RecyclingSource
from edge_conflayers.drafters.skip_sets import SkipSetArm, SkipSetPrior
from edge_conflayers.errors import BadInput
from edge_conflayers.estimates import Calibration, StepTimes
from edge_conflayers.model import Model
from edge_conflayers.prices import Prices
from edge_conflayers.search.by_kind import SearchByKind
from edge_conflayers.session import LayerMask, Session
from edge_conflayers.vocabulary import DraftVocabulary, best_size

_VERIFIED = (2, 4, 8, 16)


class AutoDrafter:
    """Makes a controller for every text, which goes on from what was learned before.

    Args:
        model: whose texts.
        prices: of its steps here.
        search: of skip sets; None if the model's layers cannot be dropped.
        savings: seconds that draft vocabularies save a draft step, by their size.
    """

    def __init__(
        self,
        model: Model,
        prices: Prices,
        search: SearchByKind | None,
        savings: Mapping[int, float],
    ) -> None:
        self.lookup = LookupSource()
        self.recycling = RecyclingSource()
        self.calibration = Calibration()
        self.vocabulary = DraftVocabulary(model)
        self.search = search
        self._prices = prices
        self._savings = savings
        self._controller: Controller | None = None

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        context = len(session)
        prices = self._prices
        times = StepTimes(prices.t1(context), {n: prices.v(n, context) for n in _VERIFIED})
        layers = self._layers(session, prompt, context) if self.search is not None else None
        self._controller = Controller(
            times, (self.lookup, self.recycling), layers, calibration=self.calibration
        )
        self._controller.begin(session, prompt)

    def _layers(self, session: Session, prompt: Sequence[int], context: int) -> SkipSetArm | None:
        assert self.search is not None
        self.search.begin(session)
        found = self.search.found
        if found is not None and self.search.mask:
            t1 = self._prices.t1(context)
            self.vocabulary.size = best_size(
                self._savings,
                self.vocabulary.coverage,
                draft_seconds=self._prices.c(found.mask, context) * t1,
                t1_seconds=t1,
                v=lambda n: self._prices.v(n, context),
            )
            try:
                self.vocabulary.begin(session, prompt)
            except BadInput:
                self.vocabulary.size = 0  # the head cannot be shortened; drafts go without
        return SkipSetArm(self.search, lambda mask: self._prior(mask, context), self.calibration)

    def _prior(self, mask: LayerMask, context: int) -> SkipSetPrior:
        assert self.search is not None
        found = self.search.found
        if found is None or not mask:
            return SkipSetPrior(0.0, 0.0, 1.0)
        prediction = found.prediction
        accepted = prediction.tokens_per_round - 1.0
        saved = self._savings.get(self.vocabulary.size, 0.0)
        return SkipSetPrior(
            accepted=accepted * self.vocabulary.coverage(self.vocabulary.size),
            drafted=accepted / prediction.acceptance if prediction.acceptance > 0 else 0.0,
            cost=self._prices.c(mask, context, saved_seconds=saved),
        )

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        assert self._controller is not None
        return self._controller.draft(session, pending, limit)

    def learn(self, session: Session, round: Round) -> None:
        assert self._controller is not None
        self._controller.learn(session, round)
        if session.draft_vocabulary:
            written = [round.draft.tokens[i] for i in round.path]
            self.vocabulary.observe(session, [*written, round.token])

    def report(self) -> dict[str, Any]:
        report = self._controller.report() if self._controller is not None else {}
        return {**report, "draft_vocabulary": self.vocabulary.size}

    def state(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        return {
            "calibration": self.calibration.state(),
            "recycling": self.recycling.state(),
            "vocabulary": self.vocabulary.state(),
        }

    def resume(self, state: Mapping[str, Any], n_vocab: int) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            BadInput: not such a state, or of another model.
        """
        try:
            calibration = Calibration.from_state(state["calibration"])
            recycling = RecyclingSource.from_state(state["recycling"], n_vocab)
            self.vocabulary.resume(state["vocabulary"])
        except (KeyError, TypeError) as error:
            raise BadInput(
                f"what was learned cannot be used ({error}); start anew with --fresh"
            ) from error
        self.calibration, self.recycling = calibration, recycling
