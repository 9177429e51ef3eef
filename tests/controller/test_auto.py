"""What auto learns from text to text, and keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted import SteadyAuto
from steps import Tiny, random_tokens

from edge_conflayers.controller.auto import AutoDrafter
from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.skip_sets import SkipSets
from edge_conflayers.methods import MethodOptions, make_method


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=6, layer_gain=0.2)


def write(model: Model, method: Any, n: int = 80, **settings: Any) -> Stats:
    stats = Stats()
    with Session(model, n_ctx=512, threads=1) as session:
        method.prepare(session)
        assert len(session) == 0
        sampler = Sampler(model, SamplerSettings(**settings))
        prompt = random_tokens(model, 30)
        list(generate(session, prompt, sampler, drafter=method.drafter, max_tokens=n, stats=stats))
        sampler.close()
    return stats


def test_what_was_learned_goes_on_in_another_process(model: Model) -> None:
    method = make_method("auto", model)
    stats = write(model, method)
    assert stats.tokens == 80
    assert sum(stats.drafter["rounds_by"].values()) == stats.rounds
    state = json.loads(json.dumps(method.state()))
    again = make_method("auto", model)
    again.resume(state)
    with Session(model, n_ctx=512, threads=1) as session:
        again.prepare(session)
        assert session.graph_stats().built == 0  # nothing is measured anew
    assert json.loads(json.dumps(again.state())) == state


def test_it_shares_its_profile_with_measured_and_tune(model: Model) -> None:
    method = make_method("auto", model)
    write(model, method)
    state = method.state()
    assert state is not None and state["costs"] is not None
    measured = make_method("measured", model)
    assert measured.settings() == method.settings()
    measured.resume(state)
    kept = measured.state()
    assert kept is not None and kept["others"] == state["others"]
    assert SkipSets.from_json(kept, model.n_layer).costs is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"others": {"auto": {}}},
        {"others": {"auto": 3}},
        {"n_layer": 99},
        {"costs": {"at": []}},
    ],
)
def test_a_damaged_state(model: Model, damage: dict[str, Any]) -> None:
    method = make_method("auto", model)
    write(model, method)
    state = {**(method.state() or {}), **damage}
    again = make_method("auto", model)
    with pytest.raises(BadInput, match="cannot be used"):
        again.resume(state)


def test_a_model_that_cannot_take_steps_back_is_decoded_plainly(tiny: Tiny) -> None:
    recurrent = tiny("mamba")
    method = make_method("auto", recurrent)
    with Session(recurrent, n_ctx=64, threads=1) as session:
        method.prepare(session)
    assert method.drafter is None


def test_a_short_context(model: Model) -> None:
    method = make_method("auto", model)
    with Session(model, n_ctx=16, threads=1) as session:
        method.prepare(session)
        sampler = Sampler(model, SamplerSettings())
        prompt = random_tokens(model, 8)
        assert len(list(generate(session, prompt, sampler, drafter=method.drafter))) == 9
        sampler.close()


def test_a_model_whose_layers_cannot_be_dropped(tiny: Tiny) -> None:
    shallow = tiny("llama", n_layer=2, layer_gain=0.2)
    stats = write(shallow, make_method("auto", shallow, MethodOptions()))
    assert stats.tokens == 80 and "skip_set" not in stats.drafter


def test_a_text_that_repeats_itself_is_drafted(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token over and over, where steps are said to take a second: on a tiny model's steps
    asking costs as much as it brings. And again in another text."""
    monkeypatch.setattr("edge_conflayers.methods.tuned.AutoDrafter", SteadyAuto)
    measured = make_method("auto", model)
    write(model, measured)
    state = json.loads(json.dumps(measured.state()))
    for each in state["costs"]["at"]:
        each.update(t1=1.0, v={n: 1.05 for n in each["v"]})
    method = make_method("auto", model)
    method.resume(state)
    for _ in range(2):
        stats = write(model, method, 100, logit_bias={70: 100.0})
        assert stats.accepted > 70 and stats.rounds < 30
        assert stats.sources.count("lookup") > 60
        by = stats.drafter["rounds_by"]
        assert sum(by.values()) == len(stats.record) and by["lookup"] > by["plain"] > 1
    state = method.state()
    assert state is not None
    expected, accepted = state["others"]["auto"]["calibration"]["trusted"]["lookup"]
    assert accepted > 0.8 * expected > 10


def test_who_pays_is_not_decided_by_a_slow_moment_for_ever(model: Model) -> None:
    """Costs of a second a step, measured while the machine did something else."""
    costs = StepCosts((Measurement(1, 1.0, attention=0.0, mlp=0.0, v={2: 1.1, 8: 1.4}),))
    drafter = AutoDrafter(model, SkipSets(model.n_layer, costs=costs))
    names = []
    for _ in range(2):
        with Session(model, n_ctx=512, threads=1) as session:
            sampler = Sampler(model, SamplerSettings())
            prompt = random_tokens(model, 30)
            for _ in generate(session, prompt, sampler, drafter=drafter, max_tokens=30):
                pass
            sampler.close()
        names.append([source.name for source in drafter._sources])
    assert names == [["lookup", "recycling"], ["lookup"]]
