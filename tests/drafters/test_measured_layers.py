"""The measured drafter: which set a text starts with, and where what it finds is kept."""

from __future__ import annotations

import json
import math
from contextlib import closing

import pytest
from steps import Tiny

from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.drafters.measured_layers import MeasuredDrafter
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.measured import Found, MeasuredSettings
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.layer_search.prompt_kinds import signature
from edge_conflayers.layer_search.search_by_kind import SearchByKind
from edge_conflayers.layer_search.skip_sets import SkipSet, SkipSets
from edge_conflayers.methods import make_method

CODE = "def mean(values):\n    total = 0\n    for v in values:\n        total += v\n    return"
OTHER_CODE = "def longest(values):\n    best = 0\n    for v in values:\n        best = max(best, v)"
TALE = "Once upon a time there lived a fox in a forest near the sea, and she was often hungry."


def known(kind: str, text: str, layers: set[int], speed: float = 1.3) -> SkipSet:
    prediction = Prediction(speed, 0.25, 5, 0.8, 3.0)
    return SkipSet(kind, signature(text), Found(LayerMask.layers(layers), prediction, 0.7))


def make_drafter(model: Model, sets: SkipSets, share: float = 0.0) -> MeasuredDrafter:
    costs = CostsAtContext(StepCosts((Measurement(1, 1.0, attention=0.1, mlp=0.1, v={2: 1.01}),)))
    settings = MeasuredSettings(window=16, share=share)
    return MeasuredDrafter(SearchByKind(sets, costs, settings))


def write(model: Model, drafter: MeasuredDrafter, prompt: str, n: int = 40) -> Stats:
    stats = Stats()
    tokens = model.tokenize(prompt)
    with (
        Session(model, n_ctx=512, threads=1) as session,
        closing(Sampler(model, SamplerSettings())) as sampler,
    ):
        for _ in generate(session, tokens, sampler, drafter=drafter, max_tokens=n, stats=stats):
            pass
    return stats


def test_a_text_starts_with_the_set_of_the_nearest_kind(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    sets = SkipSets(6, [known("code", CODE, {1, 2}), known("tale", TALE, {3})])
    drafter = make_drafter(model, sets)
    for prompt, kind, layers in ((OTHER_CODE, "code", [1, 2]), (TALE, "tale", [3])):
        stats = write(model, drafter, prompt)
        assert stats.drafter["kind"] == kind
        assert stats.drafter["skip_set"] == layers
        assert (stats.drafter["stop_probability"], stats.drafter["max_draft"]) == (0.25, 5)
        assert stats.drafted > 0
        assert max(round["drafted"] for round in stats.record) <= 5


def test_a_kind_that_was_found_to_be_slower_is_not_drafted_for(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    drafter = make_drafter(model, SkipSets(6, [known("code", CODE, {1, 2}, speed=0.9)]))
    assert write(model, drafter, CODE).drafted == 0
    assert drafter.search.mask == NO_MASK


def test_without_sets_nothing_is_drafted_until_one_is_found(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    sets = SkipSets(6)
    drafter = make_drafter(model, sets, share=math.inf)
    stats = write(model, drafter, CODE, 60)
    assert [round["drafted"] for round in stats.record[:16]] == [0] * 16
    assert stats.drafted > 0 and stats.accepted > 0
    (found,) = sets
    assert found.kind == "seen 1" and found.found == drafter.search.found
    assert sets.orders == drafter.search._search.orders is not None


def test_what_is_learned_is_kept_under_the_kind_if_it_is_near(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    before = known("code", CODE, {1, 2})
    sets = SkipSets(6, [before])
    drafter = make_drafter(model, sets, share=math.inf)
    write(model, drafter, OTHER_CODE, 60)
    (code,) = sets
    assert code.kind == "code" and code.found != before.found and code.memory.gains
    write(model, drafter, TALE, 60)
    assert {each.kind for each in sets} == {"code", "seen 1"}


def test_a_search_goes_on_in_the_next_text_and_process(tiny: Tiny) -> None:
    """Texts that are long enough for a few candidates each: none is judged twice in vain."""
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    sets = SkipSets(6)
    tried = []
    for _ in range(4):
        drafter = make_drafter(model, sets, share=math.inf)
        write(model, drafter, CODE, 40)
        drafter.search.keep()
        sets = SkipSets.from_json(json.loads(json.dumps(sets.to_json())), 6)
        (code,) = sets
        tried.append(code.memory.seeds + len(code.memory.gains))
    assert tried == sorted(tried) and tried[0] < tried[1] < tried[-1]


def test_the_method_keeps_and_resumes_its_sets(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    method = make_method("measured", model)
    costs = StepCosts((Measurement(100, 0.5, attention=0.01, mlp=0.02, v={2: 1.2}),))
    method.resume(SkipSets(6, [known("code", CODE, {1, 2})], costs).to_json())
    drafter = method.drafter
    assert isinstance(drafter, MeasuredDrafter)
    assert write(model, drafter, CODE, 30).drafted > 0
    state = method.state()
    assert state is not None
    again = SkipSets.from_json(json.loads(json.dumps(state)), 6)
    assert again.costs == costs and [each.kind for each in again] == ["code"]
    with pytest.raises(BadInput, match="cannot be used"):
        method.resume({})


def test_the_method_swift_keeps_and_resumes_its_search(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    method = make_method("swift", model)
    drafter = method.drafter
    assert drafter is not None
    stats = Stats()
    tokens = model.tokenize(CODE)
    with (
        Session(model, n_ctx=512, threads=1) as session,
        closing(Sampler(model, SamplerSettings())) as sampler,
    ):
        for _ in generate(session, tokens, sampler, drafter=drafter, max_tokens=60, stats=stats):
            pass
    state = method.state()
    assert state is not None and len(state["seen"]) > 0
    other = make_method("swift", model)
    other.resume(json.loads(json.dumps(state)))
    assert other.state() == state
    with pytest.raises(BadInput, match="cannot be used"):
        other.resume({})
