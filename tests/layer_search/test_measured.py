"""The measured search: planted optima, texts that change, its share of time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from steps import Tiny, decode, open_session, random_tokens, step

from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import NO_MASK, LayerMask
from edge_conflayers.engine.session.probe import probe, probe_stream
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.measured import Found, MeasuredSearch, MeasuredSettings
from edge_conflayers.layer_search.objective import Prediction, Record, best_prediction
from edge_conflayers.layer_search.online_measured import OnlineMeasuredSearch
from edge_conflayers.layer_search.ranking import order, orders
from edge_conflayers.layer_search.sublayers import candidates, mask_of, members

COSTS = CostsAtContext(StepCosts((Measurement(1, 1.0, attention=0.04, mlp=0.07, v={2: 1.08}),)))


class World:
    """Texts over which every dropped sub-layer does its own harm at each position: the position
    matches as long as the sum stays under 1."""

    def __init__(self, n_layer: int, harm: dict[int, float], seed: int = 0, n: int = 160) -> None:
        random = np.random.default_rng(seed)
        self.n_layer = n_layer
        mean = np.array([harm.get(i, 0.02) for i in range(candidates(n_layer))])
        self.harm = random.exponential(mean, size=(n, candidates(n_layer)))

    def records(self, mask: LayerMask) -> list[Record]:
        done = self.harm[:, members(mask, self.n_layer)].sum(axis=1)
        return [Record(bool(d < 1), float(np.exp(-d))) for d in done]

    def speed(self, mask: LayerMask) -> float:
        return best_prediction(self.records(mask), mask, COSTS).speed

    def orders(self, noise: float, seed: int = 0) -> list[list[int]]:
        random = np.random.default_rng(seed)
        return [order(self.harm.mean(axis=0) + noise * random.random(self.harm.shape[1]))]


def search_through(search: MeasuredSearch, world: World, most: int = 5000) -> int:
    for judged in range(most):
        mask = search.propose()
        if mask is None:
            return judged
        search.judge(mask, world.records(mask))
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("seed", range(4))
def test_the_planted_optimum_is_found(seed: int) -> None:
    """Harmful and harmless sub-layers in no order that the ranking knows; all 255 sets tried."""
    random = np.random.default_rng(seed)
    n_layer = 6
    harm = {int(i): 0.6 for i in random.choice(8, 4, replace=False)}
    world = World(n_layer, harm, seed)
    sets = itertools.chain.from_iterable(
        itertools.combinations(range(8), size) for size in range(1, 9)
    )
    best = max((mask_of(each, n_layer) for each in sets), key=world.speed)
    search = MeasuredSearch(n_layer, COSTS)
    search.set_orders(world.orders(noise=5.0, seed=seed))
    judged = search_through(search, world)
    assert search.found is not None
    assert search.found.prediction.speed == pytest.approx(world.speed(best))
    assert search.mask == best == search.found.mask
    assert search.finished and judged < 200


def test_a_good_ranking_and_remembered_gains_save_candidates() -> None:
    harm = {i: 0.5 for i in range(0, 40, 3)}
    world = World(22, harm)
    counts = []
    for noise in (0.0, 100.0):
        search = MeasuredSearch(22, COSTS)
        search.set_orders(world.orders(noise))
        for judged in itertools.count():  # pragma: no branch
            mask = search.propose()
            assert mask is not None
            search.judge(mask, world.records(mask))
            assert search.found is not None
            if search.found.prediction.speed > 1.5:
                counts.append(judged)
                break
    assert counts[0] < 30 and counts[0] < counts[1]


def test_nothing_is_drafted_where_plain_decoding_is_faster() -> None:
    world = World(7, {i: 50.0 for i in range(10)})
    search = MeasuredSearch(7, COSTS)
    search.set_orders(world.orders(0.0))
    search_through(search, world)
    assert search.found is not None and search.found.prediction.speed < 1
    assert search.mask == NO_MASK


def test_what_was_found_before_comes_first_and_is_judged_again() -> None:
    world = World(7, {})
    start = Found(LayerMask.layers({3}), Prediction(1.4, 0.5, 4, 0.9, 3.0), 0.8)
    other = LayerMask.layers({2, 4})
    search = MeasuredSearch(7, COSTS, start=start, others=[other])
    search.set_orders(world.orders(0.0))
    assert search.mask == start.mask
    assert search.propose() == start.mask
    search.judge(start.mask, [Record(False, 0.9)] * 64)
    assert search.found is not None and search.found.prediction.speed < 1
    assert search.mask == NO_MASK
    assert search.propose() == other
    assert search.judge(other, world.records(other))
    assert search.mask == other


def test_the_stop_rule_is_chosen_over_several_windows() -> None:
    start = Found(LayerMask.layers({3}), Prediction(1.4, 0.5, 4, 0.9, 3.0), 0.8)
    search = MeasuredSearch(7, COSTS, start=start)
    windows = [[Record(True, 0.9)] * 30, [Record(i % 5 != 4, 0.7) for i in range(30)]]
    search.judge(start.mask, windows[0])
    search.begin_window()
    assert search.propose() == start.mask
    search.judge(start.mask, windows[1])
    both = best_prediction([*windows[0], *windows[1]], start.mask, COSTS)
    assert search.found is not None and search.found.prediction == both


def test_candidates_without_a_rank_are_never_dropped() -> None:
    world = World(7, {})
    search = MeasuredSearch(7, COSTS)
    search.set_orders([[0, 1, 2], [2, 1, 0]])
    search_through(search, world)
    assert search.mask == LayerMask(attention=frozenset({1, 2, 3}))


def test_first_sets_are_sized_by_what_they_save() -> None:
    """An attention saves 0.04, a feed-forward 0.07; a tenth of all 0.55 is one and a half."""
    search = MeasuredSearch(7, COSTS, MeasuredSettings(sizes=(0.1, 0.3)))
    assert search.savings() == pytest.approx([0.04] * 5 + [0.07] * 5)
    search.set_orders([[0, 5, 1, 6, *(i for i in range(10) if i not in (0, 5, 1, 6))]])
    for expected in ({0, 5}, {0, 5, 1, 6}):
        mask = search.propose()
        assert mask == mask_of(expected, 7)
        search.judge(mask, [Record(False, 0.5)] * 30)


def test_orders_of_a_model(tiny: Tiny) -> None:
    """Sub-layers that add little for what they save come first, those that save nothing never."""
    model = tiny("llama", n_layer=6)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 80))
        found = orders(session, 40, 80, [1.0] * 8)
        assert found is not None and len(found) == 2
        assert all(sorted(each) == list(range(8)) for each in found)
        savings = [0.001, 1.0, 0.0, 1.0, 1.0, -0.1, 1.0, 1e6]
        priced = orders(session, 40, 80, savings)
        assert priced is not None
        for each in priced:
            assert sorted(each) == [0, 1, 3, 4, 6, 7]
            assert each[0] == 7 and each[-1] == 0
        probe(session, session.tokens[40:80])
        change = []
        for where, after in ((0, 1), (1, 2)):
            for layer in range(1, 5):
                a, b = (probe_stream(session, layer, at, 40) for at in (where, after))
                cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
                change.append(float((1 - cosine).mean()))
        assert [change[i] for i in found[0]] == pytest.approx(sorted(change))
        assert len(session) == 80


def test_orders_without_streams_and_without_room(tiny: Tiny) -> None:
    model = tiny("falcon", n_layer=6)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 80))
        found = orders(session, 40, 80, [1.0] * 8)
        assert found is not None and len(found) == 1
    model = tiny("llama", n_layer=6)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 250))
        assert orders(session, 100, 150, [1.0] * 8) is None


def test_orders_leave_out_what_has_no_score() -> None:
    assert order(np.array([0.3, math.nan, 0.1, math.inf, 0.2])) == [2, 4, 0]


def round_after(generated: int, seconds: float = 1.0) -> Round:
    return Round((5,), Draft(), (), 6, generated, 0.0, seconds)


def test_while_text_is_written(tiny: Tiny) -> None:
    """The ranking first, then a candidate a round over one window, until the text has moved on."""
    model = tiny("llama", n_layer=6, layer_gain=0.1)
    text = random_tokens(model, 200)
    search = OnlineMeasuredSearch(6, COSTS, MeasuredSettings(window=8, share=math.inf))
    with open_session(model, n_ctx=512) as session:
        session.read(text[:40])
        search.observe(round_after(9))
        search.advance(session)
        assert search._orders is None  # the window is not full
        for generated in range(10, 41):
            search.observe(round_after(generated))
            search.advance(session)
            session.step(text[len(session) : len(session) + 1])
        assert search.found is not None and search._span is not None
        assert search._span[0] == 32 and len(search._tried) > 10
        for generated in range(41, 45):
            search.observe(round_after(generated))
            search.advance(session)
            session.step(text[len(session) : len(session) + 1])
        assert search._span[0] == 64 and len(search._tried) < 10
        logits = step(session, text[len(session) : len(session) + 5])
        n = len(session)
    with open_session(model, n_ctx=512) as session:
        session.read(text[:40])
        decode(session, text[40 : n - 5], [1])
        assert (logits == step(session, text[n - 5 : n])).all()


def test_the_share_of_time_is_kept(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    for share, judged in ((0.0, False), (1e-9, False), (1e9, True)):
        search = OnlineMeasuredSearch(6, COSTS, MeasuredSettings(window=8, share=share))
        with open_session(model, n_ctx=256) as session:
            session.read(random_tokens(model, 40))
            for generated in range(20, 30):
                search.observe(round_after(generated, seconds=0.01))
                search.advance(session)
        assert (search._orders is not None) is judged


def test_time_that_a_candidate_took_is_earned_before_the_next(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of a tenth, rounds of one second, candidates of two: one in twenty rounds."""
    clock = itertools.count(step=2.0)
    monkeypatch.setattr(
        "edge_conflayers.layer_search.online_measured.time.perf_counter", lambda: next(clock)
    )
    model = tiny("llama", n_layer=6)
    search = OnlineMeasuredSearch(6, COSTS, MeasuredSettings(window=8, share=0.1))
    spent = 0
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 40))
        for generated in range(20, 320):
            search.observe(round_after(generated))
            before = (search._orders, len(search._tried))
            search.advance(session)
            spent += before != (search._orders, len(search._tried))
    assert 10 <= spent <= 15


def test_bad_settings_and_models() -> None:
    with pytest.raises(BadInput, match="at least 3"):
        MeasuredSearch(2, COSTS)
    with pytest.raises(BadInput, match="0 tokens"):
        MeasuredSettings(window=0)
    with pytest.raises(BadInput, match="share"):
        MeasuredSettings(share=-0.1)
