"""LayerSkip, DEL, DSSD, CLaSp and KnapSpec in the loop: plain decoding's text, and their searches
on a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own_exits import own_exits
from steps import RealModel, Tiny, assert_same_bits, decode, open_session, random_tokens
from test_identity import SAMPLERS, write

from edge_conflayers.costs.by_weights import costs_by_weights
from edge_conflayers.costs.model import CostsAtContext, Measurement, StepCosts
from edge_conflayers.decoding.drafter import Drafter
from edge_conflayers.drafters.dssd import DssdDrafter, DssdSettings
from edge_conflayers.drafters.dynamic_exit import DelDrafter, DelSettings
from edge_conflayers.drafters.early_exit import LayerSkipDrafter, LayerSkipSettings
from edge_conflayers.drafters.layers import LayersDrafter, PacedLayersDrafter
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.branches import branches
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.published.clasp import ClaspSearch, ClaspSettings
from edge_conflayers.layer_search.published.knapspec import KnapSpecSearch, KnapSpecSettings
from edge_conflayers.layer_search.published.layer_runner import LayerRunner, NoRoom
from edge_conflayers.layer_search.published.similar_paths import States
from edge_conflayers.methods import MethodOptions, make_method

# Costs at which drafting always pays, so that it is tried.
CHEAP = StepCosts((Measurement(1, 1.0, 0.08, 0.08, {2: 1.0}),))


def layerskip(model: Model) -> Drafter:
    return LayerSkipDrafter(model.n_layer, LayerSkipSettings(stop_threshold=0.02, max_draft=5))


def eager_del(model: Model) -> Drafter:
    settings = DelSettings(shadow_interval=2, shadow_tokens=5, max_draft=6, first_threshold=0.01)
    return DelDrafter(model.n_layer, settings, cost=lambda layer, gamma: 1.0 + 0.01 * layer)


def dssd(model: Model) -> Drafter:
    return DssdDrafter(model, own_exits(model), DssdSettings(epsilon=0.9, max_draft=6))


def clasp(model: Model) -> Drafter:
    settings = ClaspSettings(interval=3, skip_ratio=0.34)
    return LayersDrafter(ClaspSearch(model.n_layer, settings), stop_probability=0.02, max_draft=5)


def knapspec(model: Model) -> Drafter:
    settings = KnapSpecSettings(interval=4, levels=6, tokens=3)
    return PacedLayersDrafter(
        KnapSpecSearch(model.n_layer, CHEAP, settings), stop_probability=0.02, max_draft=5
    )


DRAFTERS: dict[str, Callable[[Model], Drafter]] = {
    "layerskip": layerskip,
    "del": eager_del,
    "dssd": dssd,
    "clasp": clasp,
    "knapspec": knapspec,
}


def check(
    model: Model, prompt: list[int], kind: dict[str, Any], n: int | None, **settings: Any
) -> None:
    plain, stats = write(model, prompt, kind, n, None, **settings)
    for name, make in DRAFTERS.items():
        found, drafted = write(model, prompt, kind, n, make(model), **settings)
        assert found == plain, name
        assert drafted.finish_reason == stats.finish_reason
        assert drafted.drafted > 0 or len(plain) < 3, name


@pytest.mark.parametrize("sampler", ["greedy", "sampled", "grammar"])
@pytest.mark.parametrize(
    ("arch", "kind"),
    [
        ("llama", {}),
        ("qwen2", {"quant": "q8_0", "n_embd": 128}),
        ("gemma3", {}),
        ("gptneox", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_text_is_plain_decodings(
    tiny: Tiny, arch: str, kind: dict[str, Any], sampler: str
) -> None:
    model = tiny(arch, n_layer=6, layer_gain=0.2, **kind)
    check(model, random_tokens(model, 20), SAMPLERS[sampler], 50)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_until_the_context_is_full(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=6, layer_gain=0.2)
    check(model, random_tokens(model, 230), SAMPLERS["sampled"], 100, n_ctx=256)


@pytest.mark.parametrize("prompt", [235, 490])
def test_where_a_window_slides(tiny: Tiny, prompt: int) -> None:
    model = tiny("gemma3", n_layer=6, layer_gain=0.2)
    check(model, random_tokens(model, prompt), SAMPLERS["sampled"], 60, batch=64)


@pytest.mark.parametrize("sampler", ["greedy", "sampled", "penalties"])
@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
def test_tokens_of_taught_exits_are_accepted(tiny: Tiny, arch: str, sampler: str) -> None:
    """In models whose layers hardly matter, by each of the exits."""
    model = tiny(arch, n_layer=8, layer_gain=0.03)
    prompt = random_tokens(model, 20)
    accepted: Counter[int] = Counter()
    for epsilon in (0.0, 0.6, 0.9):
        drafter = DssdDrafter(model, own_exits(model), DssdSettings(epsilon))
        plain, _ = write(model, prompt, SAMPLERS[sampler], 60, None)
        found, stats = write(model, prompt, SAMPLERS[sampler], 60, drafter)
        assert found == plain
        for each in stats.drafter["exits"]:
            assert each["accepted"] <= each["drafted"]
            accepted[each["layer"]] += each["accepted"]
        assert stats.accepted == sum(each["accepted"] for each in stats.drafter["exits"])
    assert accepted[2] > 0 and accepted.total() >= 20


@pytest.mark.model
def test_a_real_model(real_model: RealModel) -> None:
    model = real_model("smollm2-135m")
    prompt = model.tokenize("The first ten prime numbers are 2, 3, 5,")
    plain, _ = write(model, prompt, SAMPLERS["sampled"], 24, None)
    for name in DRAFTERS:
        exits = own_exits(model) if name == "dssd" else None
        drafter = make_method(name, model, MethodOptions(exits=exits)).drafter
        assert write(model, prompt, SAMPLERS["sampled"], 24, drafter)[0] == plain, name


@pytest.mark.parametrize("name", DRAFTERS)
def test_methods_go_on_from_their_state(tiny: Tiny, name: str) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.2)
    exits = own_exits(model) if name == "dssd" else None
    method = make_method(name, model, MethodOptions(exits=exits))
    assert method.settings()["method"] == name
    json.dumps(method.settings())
    write(model, random_tokens(model, 20), {}, 30, method.drafter)
    state = method.state()
    if state is not None:
        other = make_method(name, model)
        other.resume(json.loads(json.dumps(state)))
        assert other.state() == state
        with pytest.raises(BadInput, match="cannot be used"):
            make_method(name, tiny("llama", n_layer=9)).resume(state)


def test_dssd_asks_for_exits_that_are_taught(tiny: Tiny) -> None:
    with pytest.raises(BadInput, match=r"tune .*--exits"):
        make_method("dssd", tiny("llama", n_layer=6))
    for settings in ({"epsilon": -0.1}, {"epsilon": 1.5}, {"max_draft": 0}):
        with pytest.raises(BadInput, match="makes no sense"):
            DssdSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["layerskip", "clasp", "knapspec", "del"])
def test_recurrent_models_are_refused_by_name(tiny: Tiny, name: str) -> None:
    model = tiny("mamba", n_layer=6)
    with pytest.raises(BadInput, match="'mamba'"):
        write(model, random_tokens(model, 12), {}, 20, DRAFTERS[name](model))


def test_costs_by_weights(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    costs = CostsAtContext(costs_by_weights(model))
    whole = model.n_layer * (costs.attention + costs.mlp)
    assert 0 < costs.attention < costs.mlp and 0.5 < whole < 1.0
    assert costs.v(1) == 1.0 < costs.v(2)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_states_run_part_by_part_are_the_models(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=5)
    tokens = random_tokens(model, 40)
    with open_session(model, n_ctx=256) as session:
        session.read(tokens)
        runner = LayerRunner(session, 6)
        streams = runner.streams(4)
        assert_same_bits(streams[0], runner.embeddings())
        states = whole = streams[0][None]
        for layer in range(5):
            np.testing.assert_allclose(states[0], streams[layer], rtol=1e-4, atol=1e-4)
            for kind in ("attention", "mlp"):
                states = runner.run(states, layer, kind)
            whole = runner.run(whole, layer, "layer")
        np.testing.assert_allclose(states, whole, rtol=1e-4, atol=1e-4)
        (drawn,) = runner.tokens(states)
        session.rollback(34)
        wanted = decode(session, tokens[34:], [1])
        assert [token for token, _ in drawn] == wanted.argmax(axis=1).tolist()
        exact = np.exp(wanted.astype(np.float64))
        exact /= exact.sum(axis=1, keepdims=True)
        for (token, probability), row in zip(drawn, exact, strict=True):
            assert probability == pytest.approx(row[token], rel=1e-3)


def test_many_paths_take_several_steps(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=3)
    with open_session(model, n_ctx=512, batch=32, max_outputs=8) as session:
        session.read(random_tokens(model, 30))
        runner = LayerRunner(session, 3)
        rng = np.random.default_rng(0)
        states = rng.standard_normal((25, 3, model.n_embd)).astype(np.float32)
        for layer in range(3):
            found = runner.run(states, layer, "layer")
            for i in (0, 11, 24):
                alone = runner.run(states[i : i + 1], layer, "layer")
                np.testing.assert_allclose(found[i], alone[0], rtol=1e-3, atol=1e-3)
        assert [len(path) for path in runner.tokens(states)] == [3] * 25


def paths_of(session: Session, mask: LayerMask) -> States:
    """What the last token's states become under a mask, by a masked step of its own."""
    runner = LayerRunner(session, 1)
    found = branches(
        session,
        session.tokens[-1:],
        len(session) - 1,
        mask=mask,
        stream=session.model.n_layer - 1,
        outputs="all",
    )
    assert found is not None
    assert runner.embeddings().shape == found[0].shape
    return found[0]


def test_clasp_on_a_model(tiny: Tiny) -> None:
    """Its path's states are those of the masked model, and no worse than those of random sets on
    the whole."""
    model = tiny("llama", n_layer=8, layer_gain=0.5)
    search = ClaspSearch(8, ClaspSettings(skip_ratio=0.5))
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 60))
        before = session.tokens[:]
        search.advance(session)
        assert session.tokens == before
        assert search.mask.attention == search.mask.mlp and len(search.mask.attention) == 4
        full = paths_of(session, LayerMask())
        chosen = _cosine(paths_of(session, search.mask), full)
        rng = np.random.default_rng(0)
        others = [
            _cosine(paths_of(session, LayerMask.layers(map(int, rng.permutation(8)[:4]))), full)
            for _ in range(30)
        ]
        assert chosen > np.quantile(others, 0.8)


def test_knapspec_counts_the_tokens_that_agree(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.05)  # layers that hardly matter
    search = KnapSpecSearch(6, CHEAP, KnapSpecSettings(tokens=4, max_draft=7))
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 60))
        search.advance(session)
    assert search.draft_length == 7
    saved = 0.08 * (len(search.mask.attention) + len(search.mask.mlp))
    assert saved == pytest.approx(0.6 * 12 * 0.08, abs=0.08)
    assert search.choice.speed == pytest.approx(8 / (7 * (1 - saved) + 1))


def test_a_search_without_room_keeps_what_it_has(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6, layer_gain=0.05)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 256))
        with pytest.raises(NoRoom):
            LayerRunner(session, 1).embeddings()
        for search in (ClaspSearch(6), KnapSpecSearch(6, CHEAP)):
            search.advance(session)
            assert not search.mask
            session.rollback(200)
            search.advance(session)
            assert search.mask
            session.read(random_tokens(model, 56))


def test_shadow_tokens_are_the_exits_own(tiny: Tiny) -> None:
    """Against greedy drafts of one token by each exit, along the text."""
    model = tiny("llama", n_layer=6, layer_gain=0.3)
    text = random_tokens(model, 30)
    settings = DelSettings(exits=(1, 3, 5), shadow_tokens=6, decay=1.0)
    drafter = DelDrafter(6, settings)
    wanted: dict[int, list[tuple[float, bool]]] = {1: [], 3: [], 5: []}
    with open_session(model, n_ctx=256) as session:
        session.read(text[:23])
        for i in range(23, 29):
            for layer, seen in wanted.items():
                draft = session.draft_exit(layer, [text[i]], limit=1, stop_probability=0.0)
                seen.append((draft.probabilities[0], draft.tokens[0] == text[i + 1]))
            session.step([text[i]])
        assert drafter._draw_shadows(session, text[29])
    for layer, seen in wanted.items():
        saved = drafter.records[layer].state()
        assert saved.counts == (sum(not m for _, m in seen), sum(m for _, m in seen))
        for which in (False, True):
            assert saved.sums[which] == pytest.approx(
                sum(p for p, m in seen if m is which), rel=1e-4
            )


def _cosine(one: States, other: States) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
