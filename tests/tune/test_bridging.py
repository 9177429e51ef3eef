"""Teaching bridges with texts that a model has written."""

from __future__ import annotations

from collections import Counter

import pytest
from steps import Tiny, random_tokens

from edge_conflayers.bridges.bridge import Bridges
from edge_conflayers.bridges.search import Judged, first_block
from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.engine.model import Model
from edge_conflayers.learned import Learned
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.tune.bridging import teach_bridges
from edge_conflayers.tune.parallel_texts import FinishedText, Request

COSTS = StepCosts((Measurement(1, 1.0, attention=0.06, mlp=0.09, v={2: 1.05, 8: 1.3}),))


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("bridges compute on the CPU")


def texts(model: Model, n: int) -> list[FinishedText]:
    return [
        FinishedText(
            Request(random_tokens(model, 20 + i, i), 100), random_tokens(model, 100, 100 + i)
        )
        for i in range(n)
    ]


def test_what_is_taught_is_kept(tiny: Tiny, tmp_path: object) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    judged: list[Judged] = []
    some = texts(model, 12)
    found = teach_bridges(
        model, some, COSTS, {128: 0.01}, seconds=0.0, threads=1, on_judged=judged.append
    )
    assert found is not None and found.blocks == [first_block(6)]
    assert len(judged) == 1 and found.prediction == judged[0].prediction
    assert found.written == Counter(token for text in some for token in text.tokens)
    store = ProfileStore(tmp_path)  # type: ignore[arg-type]
    learned = Learned(model, 1, store)
    assert learned.load_bridges() is None
    learned.save_bridges(found)
    known = learned.load_bridges()
    assert isinstance(known, Bridges)
    assert (known.blocks, known.prediction) == (found.blocks, found.prediction)
    again = teach_bridges(
        model, some, COSTS, {}, seconds=0.0, known=known, threads=1, on_judged=judged.append
    )
    assert again is not None and len(judged) == 2
    learned.forget()
    assert learned.load_bridges() is None


def test_damaged_ones_are_put_aside(tiny: Tiny, tmp_path: object) -> None:
    model = tiny("llama", n_layer=6)
    store = ProfileStore(tmp_path)  # type: ignore[arg-type]
    learned = Learned(model, 1, store)
    store.save_bytes(learned.bridges_name, b"no bridges")
    assert learned.load_bridges() is None
    assert store.load_bytes(learned.bridges_name) is None


def test_too_little_text_teaches_nothing(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    assert teach_bridges(model, texts(model, 3), COSTS, {}, seconds=0.0, threads=1) is None
    assert teach_bridges(model, [], COSTS, {}, seconds=0.0, threads=1) is None
