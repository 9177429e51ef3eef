"""What is measured about steps, and how it is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gguf_models import write_tiny_model
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.costs.report import (
    ROOM,
    CostReport,
    GraphSwitch,
    SkipCost,
    ladder,
    measure,
    rows,
)
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, ContextFull, LayerMask, Outputs, Session
from edge_conflayers.errors import BadInput, EdgeConflayersError

COSTS = CostReport(
    t1_ms=36.5,
    v={2: 1.7, 16: 5.2},
    c=(SkipCost((), 1.0), SkipCost((3, 7), 0.93)),
    context=128,
    threads=2,
    graph_switch=GraphSwitch(0.0, 0.01, -0.2),
    memory_gb_per_s=61.5,
)


@given(st.integers(1, 200))
def test_the_ladder_climbs_through_the_candidates(n_layer: int) -> None:
    sets = ladder(n_layer)
    candidates = set(range(1, n_layer - 1))
    assert sets[0] == ()
    assert set(sets[-1]) == candidates
    assert len(sets) == len(set(sets)) == min(11, len(candidates) + 1)
    for skip_set in sets:
        assert list(skip_set) == sorted(set(skip_set))
        assert candidates.issuperset(skip_set)


@given(st.integers(4, 200))
def test_each_set_is_spread_evenly(n_layer: int) -> None:
    for skip_set in ladder(n_layer):
        gaps = [b - a for a, b in pairwise(skip_set)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_json_has_a_key_for_every_n_and_the_layers_of_every_set() -> None:
    content = json.loads(json.dumps(COSTS.to_json(), allow_nan=False))
    assert content["v"] == {"2": 1.7, "16": 5.2}
    assert content["c"][1] == {"skip_set": [3, 7], "c": 0.93, "weight_bytes": None}
    assert content["graph_switch"] == {"graphs_built": 0.0, "build_ms": 0.01, "wall_ms": -0.2}
    assert (content["t1_ms"], content["context"], content["threads"]) == (36.5, 128, 2)
    assert content["memory_gb_per_s"] == 61.5


def test_the_table_gives_ratios_and_milliseconds() -> None:
    table = list(rows(COSTS))
    assert table[0] == ("T1", "1.00", "36.50")
    assert table[1] == ("V(2)", "1.70", "62.05")
    assert table[-1] == ("c(2 layers dropped)", "0.93", f"{0.93 * 36.5:.2f}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    with Model(write_tiny_model(path, "llama", n_layer=6)) as loaded:
        yield loaded


def test_measuring_covers_every_case_and_leaves_a_usable_session(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    with Session(model, n_ctx=256, threads=1) as session:
        session.step([5, 6, 7])
        before = session.logits().copy()
        costs = measure(
            session,
            context=40,
            repeat=2,
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert len(session) == 0
        session.step([5, 6, 7])
        assert (session.logits() == before).all()  # no mask is left
    assert seen == [(1, 2), (2, 2)]
    assert costs.t1_ms > 0
    assert list(costs.v) == list(range(2, 17))
    assert all(ratio > 0 for ratio in costs.v.values())
    assert [cost.skip_set for cost in costs.c] == ladder(6)
    assert all(cost.c > 0 for cost in costs.c)
    assert (costs.context, costs.threads) == (40, 1)
    assert costs.graph_switch.graphs_built == 0  # both graphs stay alive
    assert costs.memory_gb_per_s is None or costs.memory_gb_per_s > 0


class Recorder(Session):
    """Notes how many tokens each step ran over, and what was dropped."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.dropped = NO_MASK
        self.steps: Counter[tuple[int, LayerMask]] = Counter()

    def set_mask(self, mask: LayerMask) -> None:
        super().set_mask(mask)
        self.dropped = mask

    def step(self, tokens: Sequence[int], *, outputs: Outputs = "last") -> None:
        super().step(tokens, outputs=outputs)
        if outputs == "all":
            assert len(self) == 40 + len(tokens)  # each step starts at the same place
            self.steps[len(tokens), self.dropped] += 1


def test_each_case_is_run_under_its_own_mask(model: Model) -> None:
    with Recorder(model, n_ctx=256, threads=1) as session:
        measure(session, context=40, repeat=3)
    for n in range(2, 17):
        assert session.steps.pop((n, NO_MASK)) >= 2 * 3
    for skip_set in ladder(model.n_layer):
        assert session.steps.pop((1, LayerMask.layers(skip_set))) >= 2 * 3
    assert not session.steps


class Unmaskable(Session):
    """A session of an architecture that no mask can serve."""

    def set_mask(self, mask: LayerMask) -> None:
        if mask:
            raise BadInput("this architecture cannot be served; use --method plain")


def test_a_model_whose_layers_cannot_be_dropped_has_no_c(model: Model) -> None:
    with Unmaskable(model, n_ctx=256, threads=1) as session:
        costs = measure(session, context=8, repeat=1)
    assert costs.c == ()
    assert list(costs.v) == list(range(2, 17))


def test_a_model_that_cannot_take_steps_back_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", "mamba")
    with (
        Model(path) as recurrent,
        Session(recurrent, n_ctx=256, threads=1) as session,
        pytest.raises(EdgeConflayersError, match="cannot forget tokens"),
    ):
        measure(session, context=8, repeat=1)


def test_limits(model: Model) -> None:
    with Session(model, n_ctx=256, threads=1) as session:
        with pytest.raises(ContextFull):
            measure(session, context=257, repeat=1)
        with pytest.raises(BadInput, match="at least 1"):
            measure(session, context=0, repeat=1)
        with pytest.raises(BadInput, match="at least 1"):
            measure(session, context=8, repeat=0)
        measure(session, context=256 - ROOM, repeat=1)
