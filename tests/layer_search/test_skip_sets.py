"""Skip sets are found by their kind's signature and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.measured import Found, Memory
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.layer_search.prompt_kinds import (
    SAME_KIND,
    SIGNATURE_SIZE,
    mean_signature,
    signature,
    similarity,
)
from edge_conflayers.layer_search.skip_sets import MOST_KINDS, SkipSet, SkipSets, merge_skip_sets

KINDS = {
    "code": (
        "def mean(values):\n    total = 0\n    for v in values:\n        total += v\n",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, x):",
        "def read_lines(path):\n    with open(path) as f:\n        return [x.strip() for x in f]",
    ),
    "arithmetic": (
        "A train travels 60 miles in 1.5 hours. How many miles does it travel in 4 hours?",
        "Tom has 12 apples and gives 5 to Ann. How many apples does he have left?",
        "A shirt costs $20 and a hat costs $8. How much do 3 shirts and 2 hats cost?",
    ),
    "summary": (
        "Summarize: The council met on Monday to discuss the new bridge, which residents have"
        " asked for since the old one was closed. The mayor said that work could begin in spring.",
        "Summarize: The storm reached the coast on Friday evening, and officials asked people who"
        " live near the river to leave their homes. Schools in the region were closed.",
        "Summarize: The company said on Tuesday that it would open a second factory in the north,"
        " which local leaders welcomed. Critics of the plan fear for the forest nearby.",
    ),
}


def found(kind: str, text: str = "a text", speed: float = 1.2) -> SkipSet:
    mask = LayerMask(attention=frozenset({1, 3}), mlp=frozenset({2}))
    prediction = Prediction(speed, 0.5, 4, 0.9, 3.1)
    memory = Memory(((0, True, 0.0125), (5, False, -0.25)), 3, 1.5)
    return SkipSet(kind, signature(text), Found(mask, prediction, 0.8), memory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_nearest_to_its_own_kind(kind: str) -> None:
    *learned, asked = KINDS[kind]
    sets = SkipSets(6)
    for name, texts in KINDS.items():
        one = found(name)
        mean = mean_signature(map(signature, texts[:2]))
        sets.keep(replace(one, signature=mean))
    nearest = sets.nearest(signature(asked))
    assert nearest is not None and nearest.kind == kind
    assert similarity(signature(learned[0]), nearest.signature) > SAME_KIND


def test_a_set_replaces_that_of_its_kind() -> None:
    sets = SkipSets(6)
    assert sets.nearest(signature("x")) is None
    sets.keep(found("a", "def f(x): return x"))
    sets.keep(found("b", "What is the capital of France?"))
    sets.keep(found("a", "def f(x): return x", speed=1.5))
    assert [(one.kind, one.found.prediction.speed) for one in sets] == [("b", 1.2), ("a", 1.5)]


def test_the_longest_kept_kinds_go_first() -> None:
    sets = SkipSets(6)
    for i in range(MOST_KINDS + 3):
        sets.keep(found(f"kind {i}"))
    assert [one.kind for one in sets] == [f"kind {i}" for i in range(3, MOST_KINDS + 3)]


def test_names_for_unnamed_kinds() -> None:
    sets = SkipSets(6, [found("seen 1"), found("code"), found("seen 3")])
    assert sets.unused_name() == "seen 2"


def test_json_restores_the_sets() -> None:
    texts = ("def f(x): return x", "Wo ist der Bahnhof?")
    sets = SkipSets(6, map(found, "ab", texts), orders=[[3, 1, 0], [2]])
    data = json.loads(json.dumps(sets.to_json()))
    again = SkipSets.from_json(data, 6)
    assert again.costs is None and again.orders == [[3, 1, 0], [2]]
    for one, other in zip(sets, again, strict=True):
        assert (one.kind, one.found, one.memory) == (other.kind, other.found, other.memory)
        assert similarity(one.signature, other.signature) > 0.999
    assert again.to_json() == data


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("signature", [0.5, 0.5]),
        ("signature", [float("nan")] * SIGNATURE_SIZE),
        ("mask", {"attention": [6], "mlp": []}),
        ("mask", [1, 2]),
        ("speed", None),
        ("acceptance", 1.5),
        ("max_draft", 0),
        ("max_draft", 2.5),
        ("c", "cheap"),
        ("gains", [[8, True, 0.5]]),
        ("gains", [[1, 0.5]]),
        ("seeds", -1),
        ("credit", float("inf")),
    ],
)
def test_damaged_sets_are_refused(name: str, value: object) -> None:
    data = SkipSets(6, [found("a")]).to_json()
    data["sets"]["a"][name] = value
    with pytest.raises(BadInput, match="cannot be used"):
        SkipSets.from_json(data, 6)


def test_orders_of_another_model_are_refused() -> None:
    data = SkipSets(6, orders=[[7]]).to_json()
    assert SkipSets.from_json(data, 6).orders == [[7]]
    with pytest.raises(BadInput, match="sub-layer 8 of a model that has 8"):
        SkipSets.from_json({**data, "orders": [[8]]}, 6)


def test_sets_of_another_model_are_refused() -> None:
    with pytest.raises(BadInput, match="n_layer 6, not 8"):
        SkipSets.from_json(SkipSets(6).to_json(), 8)
    with pytest.raises(BadInput, match="cannot be used"):
        SkipSets.from_json({}, 8)


def state(*kinds: str, speed: float = 1.5, costs: float | None = None) -> dict[str, Any]:
    """A profile with these kinds' sets."""
    sets = SkipSets(6, map(found, kinds))
    if costs is not None:
        sets.costs = StepCosts((Measurement(240, costs, 0.0, 0.0, {2: 1.1}),))
    saved = sets.to_json()
    for each in saved["sets"].values():
        each["speed"] = speed
    return saved


def test_what_tune_finds_survives_a_run_that_began_before() -> None:
    before = state()
    run = state("seen 1", "code", costs=1.0)  # which measured and searched for itself
    run["others"]["auto"] = {"learned": 1}
    tuned = merge_skip_sets(
        state("code", "talk", speed=2.0, costs=2.0), before, None, None, tuned=True
    )
    both = merge_skip_sets(run, before, tuned, None, tuned=False)
    assert both["costs"] == tuned["costs"]
    assert list(both["sets"]) == ["code", "talk", "seen 1"]
    assert both["sets"]["code"] == tuned["sets"]["code"]
    assert both["others"] == {"auto": {"learned": 1}}
    # The run goes on, and saves once more what it has changed since.
    again = merge_skip_sets(run, run, both, both, tuned=False)
    assert again == both


def test_what_a_run_learns_survives_a_tune_that_began_before() -> None:
    before = state("code", costs=1.0)
    run = state("code", "seen 1", costs=1.0)
    run["others"]["auto"] = {"learned": 1}
    stored = merge_skip_sets(run, before, before, before, tuned=False)
    assert stored == run
    tune = state("code", "talk", speed=2.0, costs=1.0)
    both = merge_skip_sets(tune, before, stored, before, tuned=True)
    assert set(both["sets"]) == {"code", "seen 1", "talk"}
    assert both["sets"]["code"]["speed"] == 2.0
    assert both["others"] == {"auto": {"learned": 1}}


def test_what_was_forgotten_meanwhile_does_not_come_back() -> None:
    before = state("code", costs=1.0)
    run = state("code", "seen 1", costs=1.0)
    saved = merge_skip_sets(run, before, None, before, tuned=False)
    assert list(saved["sets"]) == ["seen 1"] and saved["costs"] is None


def test_a_merged_profile_does_not_grow_without_end() -> None:
    many = state(*(f"kind {i}" for i in range(MOST_KINDS)))
    saved = merge_skip_sets(state("new"), state(), many, many, tuned=False)
    assert list(saved["sets"]) == [*(f"kind {i}" for i in range(1, MOST_KINDS)), "new"]
    assert len(SkipSets.from_json(saved, 6)) == MOST_KINDS
