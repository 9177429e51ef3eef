"""Method auto's drafters under one controller: lookups, recycled and foreseen tokens, dropped
layers, a second model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.arm import Prior
from edge_conflayers.controller.controller import Controller, Lineup
from edge_conflayers.controller.draft_model_arm import DraftModelArm
from edge_conflayers.controller.layers_arm import LayersArm
from edge_conflayers.controller.policy import WITH_NEXT_STATE, Policy
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.costs.model import CostsAtContext
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters.draft_vocabulary import (
    DraftVocabulary,
    best_size,
    measure_savings,
    typical_size,
)
from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.drafters.next_state import NextStateSource, head_pays
from edge_conflayers.drafters.recycling import RecyclingSource
from edge_conflayers.drafters.source import CandidateSource
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.measured import MeasuredSettings
from edge_conflayers.layer_search.search_by_kind import SearchByKind
from edge_conflayers.layer_search.skip_sets import SkipSets
from edge_conflayers.next_state.head import HEAD_VOCABULARY_SIZE, NextStateHead
from edge_conflayers.profiles.saved_state import SavedState

_VERIFIED = (2, 4, 8, 16)  # tokens whose V(n) is taken from the costs
# Seconds of a one-token step from which on recycling pays: it learns from every step's logits,
# which takes 40 us, and beside lookups it brings 1 % (1.5B, 53 recorded texts, 2026-11-23).
_RECYCLING_PAYS_FROM = 0.02
# V(2) under which a second token costs nothing, as where one-token steps are padded to two tokens
# (``onnx.exact``). Not tuned.
_FREE = 1.03


class _State(SavedState):
    calibration: dict[str, Any]  # of AcceptanceRates
    recycling: dict[str, Any]  # of RecyclingSource
    vocabulary: dict[str, Any]  # of DraftVocabulary


class AutoDrafter(Controller):
    """The controller of method auto. It makes the drafters, keeps what they learn from text to
    text, and says who takes part in a text.

    Args:
        model: whose texts.
        sets: costs of its steps, which must be there, and skip sets, which are kept up to date.
        policy: None for what the sources of a text call for.
        draft_model: drafts as well; stays open as long as the drafter.
        next_state: proposes tokens as well.
    """

    def __init__(
        self,
        model: LanguageModel,
        sets: SkipSets,
        policy: Policy | None = None,
        *,
        draft_model: LanguageModel | None = None,
        next_state: NextStateHead | None = None,
    ) -> None:
        assert sets.costs is not None
        self._sets = sets
        self._costs = sets.costs
        self._context = 0  # tokens before the text
        self._short = False  # whether drafts choose from the draft vocabulary
        super().__init__(StepTimes(*self._step_times()))
        self._fixed_policy = policy
        self._model = model
        self._at_context = CostsAtContext(sets.costs)
        self._vocabulary = DraftVocabulary(model)
        self._lookup = LookupSource()
        self._recycling = RecyclingSource()
        self._next_state = None if next_state is None else NextStateSource(next_state)
        self._draft_model = draft_model
        self._search: SearchByKind | None = None
        # Where no states are shown, ranking sub-layers takes as many steps as there are of them,
        # and dropping half the layers still takes 0.6 to 0.7 of a step (2026-11-28).
        if sets.costs.maskable and (model.shows_states or len(sets) > 0):
            with contextlib.suppress(BadInput):  # too few layers
                self._search = SearchByKind(
                    sets, self._at_context, MeasuredSettings(share=math.inf)
                )
        self._make_arms()

    def _make_arms(self) -> None:
        self._layers_arm: LayersArm | None = None
        self._draft_model_arm: DraftModelArm | None = None
        if self._search is not None:
            self._layers_arm = LayersArm(self._search, self._prior, self.acceptance)
        if self._draft_model is not None:
            self._draft_model_arm = DraftModelArm(self._draft_model, self.acceptance)

    @property
    def head_pays(self) -> bool:
        """Whether asking a next-state head is worth its time here."""
        return self._model.shows_states and head_pays(self._costs.t1(0))

    def use_head(self, head: NextStateHead) -> None:
        """Asks this head from the next text on."""
        self._next_state = NextStateSource(head)

    def prepare(self, session: TextSession) -> None:
        """Measures what draft vocabularies save, once there is a skip set to use them with."""
        sets = self._sets
        if sets.savings is None and self._search is not None and len(sets) > 0:
            session.clear()
            sets.savings = measure_savings(session, self._vocabulary, repeat=3)
        size = typical_size(sets.savings or {}, self._vocabulary, self._costs, 0)
        self._at_context.saved_seconds = (sets.savings or {}).get(size, 0.0)

    def line_up(self, session: TextSession, prompt: Sequence[int]) -> Lineup:
        """See ``Controller.line_up``."""
        self._context = len(session)
        before = self.times.t1  # as it was in the last text
        self.times.begin_text(*self._step_times())
        # Costs that were measured in a slow moment must not say who pays text after text.
        t1 = min(before, self.times.t1)
        next_state = self._begin_next_state(session, t1)
        mask = self._begin_search(session)
        if mask or next_state is not None:
            self._begin_vocabulary(session, prompt, mask, next_state)
        self._short = bool(session.draft_vocabulary)
        sources: list[CandidateSource] = [self._lookup]
        if t1 >= _RECYCLING_PAYS_FROM or self.times.v(2) < _FREE:
            sources.append(self._recycling)
        policy = Policy()
        if next_state is not None and self._short:
            sources.append(next_state)
            policy = WITH_NEXT_STATE
        others = () if self._draft_model_arm is None else (self._draft_model_arm,)
        return Lineup(sources, self._layers_arm, others, self._fixed_policy or policy)

    def _step_times(self) -> tuple[float, dict[int, float]]:
        """T1 and V(n) by the costs, at the text's context."""
        costs, context = self._costs, self._context
        return costs.t1(context), {n: costs.v(n, context) for n in _VERIFIED}

    def _begin_next_state(self, session: TextSession, t1: float) -> NextStateSource | None:
        """The next-state source, if it pays at this T1 and can serve this text."""
        source = self._next_state
        if source is None or not head_pays(t1):
            return None
        self.acceptance.expect(source.name, source.head.chances)
        return source if source.begin(session, self.times, self.acceptance) else None

    def _begin_search(self, session: TextSession) -> LayerMask:
        """The mask of the skip set for this text, if there is one."""
        if self._search is None:
            return NO_MASK
        self._search.begin(session)
        return self._search.mask if self._search.found is not None else NO_MASK

    def _begin_vocabulary(
        self,
        session: TextSession,
        prompt: Sequence[int],
        mask: LayerMask,
        next_state: NextStateSource | None,
    ) -> None:
        """Sets the draft vocabulary that layers and the next-state head share."""
        vocabulary, context = self._vocabulary, self._context
        if next_state is not None:
            vocabulary.expect(next_state.head.written)
        size = HEAD_VOCABULARY_SIZE
        if mask:
            t1 = self._costs.t1(context)
            size = best_size(
                self._sets.savings or {},
                vocabulary.coverage,
                draft_seconds=self._costs.c(mask, context) * t1,
                t1_seconds=t1,
                v=lambda n: self._costs.v(n, context),
            )
            # Asking the head takes longer among more tokens; twice as many was not measured apart.
            if next_state is not None and not 0 < size <= 2 * HEAD_VOCABULARY_SIZE:
                size = HEAD_VOCABULARY_SIZE
        vocabulary.size = size
        with contextlib.suppress(BadInput):  # no memory for it, or a head that is refused
            vocabulary.begin(session, prompt)

    def _prior(self, mask: LayerMask) -> Prior:
        """What the search predicts of drafts under its mask."""
        assert self._search is not None
        found = self._search.found
        if found is None or not mask:
            return Prior(0.0, 0.0, 0.0)
        prediction = found.prediction
        accepted = prediction.tokens_per_round - 1.0
        size = self._vocabulary.size if self._short else 0
        saved = (self._sets.savings or {}).get(size, 0.0)
        c = CostsAtContext(self._costs, self._context, saved).c(mask)
        return Prior(
            accepted=accepted * self._vocabulary.coverage(size),
            drafted=accepted / prediction.acceptance if prediction.acceptance > 0 else 0.0,
            seconds=c * self._costs.t1(self._context),
        )

    def skipped(self, session: TextSession, rounds: Sequence[Round], woken: bool) -> None:
        """See ``PollingDrafter.skipped``."""
        super().skipped(session, rounds, woken)
        self._update_vocabulary(session, [round.token for round in rounds])

    def learn(self, session: TextSession, round: Round) -> None:
        """See ``Drafter.learn``."""
        super().learn(session, round)
        self._update_vocabulary(session, round.drawn)

    def _update_vocabulary(self, session: TextSession, drawn: Sequence[int]) -> None:
        if session.draft_vocabulary:
            with contextlib.suppress(BadInput):
                self._vocabulary.observe(session, drawn)

    def report(self) -> dict[str, Any]:
        return {**super().report(), "draft_vocabulary": self._vocabulary.size}

    def close(self) -> None:
        """Frees the second model's session."""
        if self._draft_model_arm is not None:
            self._draft_model_arm.close()

    def state(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        return _State(
            self.acceptance.state(), self._recycling.state(), self._vocabulary.state()
        ).to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` returned.

        Raises:
            BadInput: not such a state, or of another model.
        """
        saved = _State.from_json(state)
        acceptance = AcceptanceRates.from_state(saved.calibration)
        recycling = RecyclingSource.from_state(saved.recycling, self._model.n_vocab)
        self._vocabulary.resume(saved.vocabulary)
        self.acceptance, self._recycling = acceptance, recycling
        self._make_arms()
