"""Lookups, recycled and foreseen tokens and dropped layers under one controller, text after
text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceChances
from edge_conflayers.controller.arm import Prior
from edge_conflayers.controller.controller import FORESEEING, Caution, Controller
from edge_conflayers.controller.draft_model_arm import DraftModelArm
from edge_conflayers.controller.layers_arm import SkipSetArm
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.costs.model import CostsAtContext
from edge_conflayers.decoding.drafter import Pause
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_vocabulary import (
    DraftVocabulary,
    best_size,
    measure_savings,
    typical_size,
)
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.next_state import PAYS_FROM, NextStateSource
from edge_conflayers.drafters.recycling import RecyclingSource
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.by_kind import SearchByKind
from edge_conflayers.layer_search.measured import MeasuredSettings
from edge_conflayers.layer_search.skip_sets import SkipSets
from edge_conflayers.next_state.head import FORESEEN_AMONG, NextStateHead

_VERIFIED = (2, 4, 8, 16)
# Recycling learns from every step's logits, which takes some 40 us, and beside lookups it brings
# about a hundredth: seconds of a one-token step from which on it is worth that.
_RECYCLING_PAYS = 0.02


class AutoDrafter:
    """Makes a controller for every text, which goes on from what was learned before.

    Args:
        model: whose texts.
        sets: costs of its steps, which must be there, and skip sets, which are kept up to date.
        caution: of the controllers; None for what the sources call for.
        draft_model: drafts as well; stays open as long as the drafter.
        next_state: foresees tokens as well.
    """

    def __init__(
        self,
        model: Model,
        sets: SkipSets,
        caution: Caution | None = None,
        *,
        draft_model: Model | None = None,
        next_state: NextStateHead | None = None,
    ) -> None:
        assert sets.costs is not None
        self._sets = sets
        self._costs = sets.costs
        self._at_context = CostsAtContext(sets.costs)
        self._model = model
        self._caution = caution
        self._lookup = LookupSource()
        self._recycling = RecyclingSource()
        self._calibration = AcceptanceChances()
        self._times: StepTimes | None = None  # of the text before
        self._vocabulary = DraftVocabulary(model)
        self._foresight = None if next_state is None else NextStateSource(next_state)
        self._draft_model = draft_model
        self._second: DraftModelArm | None = None
        self._controller: Controller | None = None
        self._short = False  # whether drafts choose from the draft vocabulary
        self._search: SearchByKind | None = None
        if sets.costs.maskable:
            with contextlib.suppress(BadInput):  # too few layers
                self._search = SearchByKind(
                    sets, self._at_context, MeasuredSettings(share=math.inf)
                )

    def prepare(self, session: Session) -> None:
        """Measures what draft vocabularies save, once there is a skip set to use them with."""
        sets = self._sets
        if sets.savings is None and self._search is not None and len(sets) > 0:
            session.clear()
            sets.savings = measure_savings(session, self._vocabulary, repeat=3)
        size = typical_size(sets.savings or {}, self._vocabulary, self._costs, 0)
        self._at_context.saved_seconds = (sets.savings or {}).get(size, 0.0)

    def begin(self, session: Session, prompt: Sequence[int]) -> None:
        context = len(session)
        costs = self._costs
        v = {n: costs.v(n, context) for n in _VERIFIED}
        times = self._times = StepTimes(costs.t1(context), v, self._times)
        foresight = self._foresight if times.t1 >= PAYS_FROM else None
        if foresight is not None and not foresight.begin(session, times):
            foresight = None
        if foresight is not None:
            self._calibration.expect(foresight.name, foresight.head.chances)
        mask = self._find_mask(session)
        if mask or foresight is not None:
            self._begin_vocabulary(session, prompt, mask, context, foresight is not None)
        self._short = bool(session.draft_vocabulary)
        layers = self._layers(context)
        second = self._begin_second(session, prompt)
        sources: list[CandidateSource] = [self._lookup]
        if times.t1 >= _RECYCLING_PAYS:
            sources.append(self._recycling)
        caution = self._caution
        if foresight is not None and self._short:
            sources.append(foresight)
            caution = caution or FORESEEING
        self._controller = Controller(
            times,
            sources,
            layers,
            others=() if second is None else (second,),
            calibration=self._calibration,
            caution=caution,
        )
        self._controller.begin(session, prompt)

    def _begin_second(self, session: Session, prompt: Sequence[int]) -> DraftModelArm | None:
        if self._draft_model is None:
            return None
        if self._second is None:
            self._second = DraftModelArm(self._draft_model, self._calibration)
        self._second.begin(session, prompt)
        return self._second

    def _find_mask(self, session: Session) -> LayerMask:
        """Of the skip set for this text, if there is one."""
        if self._search is None:
            return NO_MASK
        self._search.begin(session)
        return self._search.mask if self._search.found is not None else NO_MASK

    def _begin_vocabulary(
        self, session: Session, prompt: Sequence[int], mask: LayerMask, context: int, foresees: bool
    ) -> None:
        vocabulary = self._vocabulary
        if foresees:
            assert self._foresight is not None
            vocabulary.expect(self._foresight.head.written)
        size = FORESEEN_AMONG
        if mask:
            t1 = self._costs.t1(context)
            size = best_size(
                self._sets.savings or {},
                vocabulary.coverage,
                draft_seconds=self._costs.c(mask, context) * t1,
                t1_seconds=t1,
                v=lambda n: self._costs.v(n, context),
            )
            if foresees and not 0 < size <= 2 * FORESEEN_AMONG:
                size = FORESEEN_AMONG
        vocabulary.size = size
        with contextlib.suppress(BadInput):  # no memory for it, or a head that is refused
            vocabulary.begin(session, prompt)

    def _layers(self, context: int) -> SkipSetArm | None:
        if self._search is None:
            return None
        return SkipSetArm(self._search, lambda mask: self._prior(mask, context), self._calibration)

    def _prior(self, mask: LayerMask, context: int) -> Prior:
        assert self._search is not None
        found = self._search.found
        if found is None or not mask:
            return Prior(0.0, 0.0, 0.0)
        prediction = found.prediction
        accepted = prediction.tokens_per_round - 1.0
        size = self._vocabulary.size if self._short else 0
        saved = (self._sets.savings or {}).get(size, 0.0)
        return Prior(
            accepted=accepted * self._vocabulary.coverage(size),
            drafted=accepted / prediction.acceptance if prediction.acceptance > 0 else 0.0,
            seconds=CostsAtContext(self._costs, context, saved).c(mask) * self._costs.t1(context),
        )

    def pause(self) -> Pause | None:
        assert self._controller is not None
        return self._controller.pause()

    def passed(self, session: Session, rounds: Sequence[Round], called: bool) -> None:
        assert self._controller is not None
        self._controller.passed(session, rounds, called)
        self._hear(session, [round.token for round in rounds])

    def draft(self, session: Session, pending: Sequence[int], limit: int) -> Draft:
        assert self._controller is not None
        return self._controller.draft(session, pending, limit)

    def learn(self, session: Session, round: Round) -> None:
        assert self._controller is not None
        self._controller.learn(session, round)
        self._hear(session, round.drawn)

    def _hear(self, session: Session, drawn: Sequence[int]) -> None:
        if session.draft_vocabulary:
            with contextlib.suppress(BadInput):
                self._vocabulary.observe(session, drawn)

    def report(self) -> dict[str, Any]:
        report = self._controller.report() if self._controller is not None else {}
        return {**report, "draft_vocabulary": self._vocabulary.size}

    def close(self) -> None:
        """Frees the second model's session."""
        if self._second is not None:
            self._second.close()
            self._second = None

    def state(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        return {
            "calibration": self._calibration.state(),
            "recycling": self._recycling.state(),
            "vocabulary": self._vocabulary.state(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            BadInput: not such a state, or of another model.
        """
        try:
            calibration = AcceptanceChances.from_state(state["calibration"])
            recycling = RecyclingSource.from_state(state["recycling"], self._model.n_vocab)
            self._vocabulary.resume(state["vocabulary"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"what was learned cannot be used ({error}); start anew with --fresh"
            ) from error
        self._calibration, self._recycling = calibration, recycling
