"""Teaching bridges while texts are written, and choosing among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from steps import Tiny, random_tokens

from edge_conflayers.bridges.bridge import Bridge, Bridges
from edge_conflayers.bridges.regression import LEAST_TOKENS, BridgeRegression
from edge_conflayers.bridges.search import Judged
from edge_conflayers.bridges.streams import streams_of
from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.learned import Learned
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.tune import bridge_lessons
from edge_conflayers.tune.bridge_lessons import BridgeLessons
from edge_conflayers.tune.bridging import choose_bridges
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request

COSTS = StepCosts((Measurement(1, 1.0, attention=0.06, mlp=0.09, v={2: 1.05, 8: 1.3}),))
BLOCK = (2, 5)


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("bridges compute on the CPU")


def requests(model: Model, n: int) -> Iterator[Request]:
    return (Request(random_tokens(model, 8 + i, i), 100, 0) for i in range(n))


def written(model: Model, n: int) -> tuple[list[Bridge], list[FinishedText]]:
    """Bridges over one block, and the texts that taught them."""
    with ParallelTexts(model, n_parallel=4, n_ctx=256, threads=1) as texts:
        lessons = BridgeLessons(texts, [BLOCK])
        finished = []
        for each in texts.write(requests(model, n)):
            lessons.take(each)
            if isinstance(each, FinishedText):
                finished.append(each)
        return lessons.finish(), finished


def test_what_surrounds_a_block_is_kept_at_every_token(tiny: Tiny) -> None:
    """Of prompts and texts, as a session sees it that reads them."""
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    seen: dict[Request, list[np.ndarray]] = {}
    with ParallelTexts(model, n_parallel=3, n_ctx=256, threads=1) as texts:
        texts.keep_around(BLOCK)
        finished = []
        for each in texts.write(requests(model, 5)):
            if isinstance(each, FinishedText):
                finished.append(each)
            else:
                assert each.around is not None
                seen.setdefault(each.request, []).append(each.around)
    with Session(model, n_ctx=512, threads=1) as session:
        for text in finished:
            tokens = [*text.request.prompt, *text.tokens]
            streams = streams_of(session, tokens, BLOCK)
            assert streams is not None
            kept = np.stack(seen[text.request], axis=1)  # but for the first token
            n = kept.shape[1]
            assert n >= len(tokens) - 2
            np.testing.assert_allclose(kept, streams[:, 1 : n + 1], rtol=0.02, atol=0.02)


def test_texts_keep_nothing_unless_asked(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    with ParallelTexts(model, n_parallel=2, n_ctx=256, threads=1) as texts:
        tokens = [e for e in texts.write(requests(model, 2)) if not isinstance(e, FinishedText)]
    assert tokens and all(each.around is None for each in tokens)


def test_lessons_are_the_regression_over_all_texts(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    (bridge,), texts = written(model, 16)
    assert (bridge.begin, bridge.end) == BLOCK
    regression = BridgeRegression(model.n_embd)
    with Session(model, n_ctx=512, threads=1) as session:
        for text in texts:
            streams = streams_of(session, [*text.request.prompt, *text.tokens], BLOCK)
            assert streams is not None
            regression.add(*streams[:, 1:].astype("float32"))
    expected = regression.solve(*BLOCK).weights
    assert np.abs(bridge.weights - expected).mean() < 0.05 * np.abs(expected).mean()


def test_blocks_take_turns(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_lessons, "ENOUGH_TOKENS", LEAST_TOKENS)
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    with ParallelTexts(model, n_parallel=4, n_ctx=256, threads=1) as texts:
        lessons = BridgeLessons(texts, [BLOCK, (1, 4), (2, 4)])
        for each in texts.write(requests(model, 28)):
            lessons.take(each)
        blocks = [(each.begin, each.end) for each in lessons.finish()]
    assert blocks == [BLOCK, (1, 4)]  # too little was left for the third


def test_what_is_chosen_is_kept(tiny: Tiny, tmp_path: object) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    bridges, texts = written(model, 16)
    judged: list[Judged] = []
    found = choose_bridges(
        *(model, bridges, texts, COSTS, {128: 0.01}),
        seconds=0.0,
        threads=1,
        on_judged=judged.append,
    )
    assert found is not None and found.blocks == [BLOCK]
    assert len(judged) == 1 and found.prediction == judged[0].prediction
    assert found.written == Counter(token for text in texts for token in text.tokens)
    store = ProfileStore(tmp_path)  # type: ignore[arg-type]
    learned = Learned(model, 1, store)
    assert learned.load_bridges() is None
    learned.save_bridges(found)
    known = learned.load_bridges()
    assert isinstance(known, Bridges)
    assert (known.blocks, known.prediction) == (found.blocks, found.prediction)
    again = choose_bridges(
        *(model, bridges, texts, COSTS, {}),
        seconds=60.0,
        known=known,
        threads=1,
        on_judged=judged.append,
    )
    assert again is not None and len(judged) == 3
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
    bridges, texts = written(model, 3)
    assert bridges == []
    assert choose_bridges(model, bridges, texts, COSTS, {}, seconds=0.0, threads=1) is None


def test_a_model_that_cannot_be_served_is_refused(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    with (
        ParallelTexts(model, n_parallel=2, n_ctx=64, threads=1) as texts,
        pytest.raises(BadInput),
    ):
        BridgeLessons(texts, [(2, 6)])  # the last layer is needed
