"""Drafts by taught exits: what they guess, and verification that goes on where they stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from exit_rounds import check_round
from gguf_models import FAMILIES
from steps import (
    CACHES,
    RealModel,
    Tiny,
    assert_same_bits,
    assert_undisturbed,
    open_session,
    random_tokens,
    step,
    verify,
)

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.next_state_head import output_state
from edge_conflayers.engine.session.taught_exits import (
    draft_by_exits,
    exit_name,
    keep_streams,
    kept_stream,
    set_taught_exits,
)
from edge_conflayers.errors import BadInput, EdgeConflayersError

Weights = npt.NDArray[np.float32]
ALWAYS, NEVER = float("inf"), -1.0


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("taught exits compute on the CPU")


def random_exits(model: Model, n: int, seed: int = 0) -> tuple[Weights, Weights]:
    """Norms and weights that keep much of the residual stream, so that exits differ."""
    rng = np.random.default_rng(seed)
    n_embd = model.n_embd
    noise = rng.normal(size=(n, n_embd, n_embd)) / np.sqrt(n_embd)
    weights = np.eye(n_embd) + 0.5 * noise
    norms = rng.uniform(0.5, 2.0, (n, n_embd))
    return norms.astype(np.float32), weights.astype(np.float32)


def with_exits(model: Model, layers: Sequence[int], **settings: Any) -> Session:
    session = open_session(model, **{"n_ctx": 256, **settings})
    set_taught_exits(session, layers, *random_exits(model, len(layers)))
    session.set_draft_vocabulary(range(model.n_vocab))
    return session


def check_reuse(model: Model, layers: Sequence[int], *, prompt: int, **settings: Any) -> set[str]:
    """Rounds under all kinds of thresholds, with accepted parts of all lengths, against a session
    that decodes the same tokens one by one. Returns the exits that drafted."""
    tokens = random_tokens(model, prompt + 8)
    sources: set[str] = set()
    with (
        with_exits(model, layers, **{"n_ctx": 1024, **settings}) as session,
        open_session(model, **{"n_ctx": 1024, **settings}) as reference,
    ):
        session.read(tokens[:prompt])
        reference.read(tokens[:prompt])
        rng = np.random.default_rng(prompt)
        pending = [tokens[prompt]]
        reused = 0
        for round in range(16):
            # Each exit is sure of about a half of what comes by it; some are always or never.
            thresholds = [float(rng.choice([NEVER, 0, 1, 1, 1, ALWAYS])) for _ in layers]
            thresholds = [
                middle(session, pending, k, len(layers)) if each == 1 else each
                for k, each in enumerate(thresholds)
            ]
            begin = len(session)
            limit = int(rng.integers(1, 9))
            draft = draft_by_exits(session, pending, thresholds=thresholds, limit=limit)
            assert len(session) == begin and len(draft.tokens) <= limit
            sources.update(draft.sources)
            if draft.exit is not None:
                assert draft.exit.layer in layers
                assert draft.exit.states.shape == (len(pending) + len(draft.tokens), model.n_embd)
                reused += 1
            else:
                assert max(thresholds) < 0
            pending = check_round(
                *(session, reference, pending, draft, rng), number=round, reused=reused
            )
    return sources


def middle(session: Session, pending: Sequence[int], which: int, n: int) -> float:
    """A threshold that an exit's entropies of a chain of its own are about half of the time
    under: found by bisection of when it drafts a token."""
    low, high = 0.0, float(np.log(session.model.n_vocab))
    for _ in range(6):
        half = (low + high) / 2
        thresholds = [NEVER] * n
        thresholds[which] = half
        draft = draft_by_exits(session, pending, thresholds=thresholds, limit=4)
        low, high = (low, half) if len(draft.tokens) > 1 else (half, high)
    return (low + high) / 2


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("kind", CACHES)
def test_going_on_from_a_walk_is_a_full_step(tiny: Tiny, arch: str, kind: str) -> None:
    model = tiny(arch, n_layer=6, n_embd=128)
    sources = check_reuse(model, (1, 3, 5), prompt=30, **CACHES[kind])
    assert sources == {exit_name(layer) for layer in (1, 3, 5)}


@pytest.mark.parametrize("quant", ["q4_0", "q8_0", "f16"])
def test_in_quantized_models(tiny: Tiny, quant: str) -> None:
    model = tiny("llama", n_layer=4, n_embd=256, n_ff=512, quant=quant)
    assert check_reuse(model, (1, 2, 3), prompt=20)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("prompt", [250, 500, 760])
def test_where_the_cache_grows_and_the_window_slides(tiny: Tiny, arch: str, prompt: int) -> None:
    model = tiny(arch, n_layer=4)
    assert check_reuse(model, (1, 2, 3), prompt=prompt, batch=64)


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_in_a_real_model(real_model: RealModel, name: str) -> None:
    model = real_model(name)
    quarter = model.n_layer // 4
    assert check_reuse(model, (quarter, 2 * quarter, 3 * quarter), prompt=40, threads=2)


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_architecture_or_its_refusal(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4)
    assert check_reuse(model, (1, 3), prompt=20, n_ctx=128)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_an_exit_that_is_taught_nothing_is_the_models_own(tiny: Tiny, arch: str) -> None:
    """With the model's norm and no map, an exit drafts what an early exit of LayerSkip does."""
    model = tiny(arch, n_layer=5, layer_gain=0.3, quant="f32")
    tensors = {each.name: each for each in gguf.GGUFReader(model.path).tensors}
    norm = np.array(tensors["output_norm.weight"].data, dtype=np.float32)[None]
    tokens = random_tokens(model, 40)
    same = 0
    with open_session(model, n_ctx=256) as session:
        set_taught_exits(session, [2], norm, np.eye(model.n_embd, dtype=np.float32)[None])
        session.set_draft_vocabulary(range(model.n_vocab))
        session.read(tokens)
        for i in range(20):
            pending = random_tokens(model, 2, seed=i)
            wanted = session.draft_exit(2, pending, limit=1, stop_probability=0.0)
            found = draft_by_exits(session, pending, thresholds=[ALWAYS], limit=1)
            same += found.tokens == wanted.tokens
            if found.tokens == wanted.tokens:
                # The map is kept in eight bits.
                assert found.probabilities == pytest.approx(wanted.probabilities, rel=0.2)
    assert same >= 17


def test_each_token_is_by_the_first_exit_that_is_sure(tiny: Tiny) -> None:
    """Against the residual streams of full steps over the same tokens."""
    model = tiny("llama", n_layer=6, n_embd=128, quant="f32")
    layers = (2, 4)
    norms, weights = random_exits(model, 2)
    rows = lm_head(model)
    tokens = random_tokens(model, 30)
    by: list[str] = []
    with with_exits(model, layers) as session, open_session(model, n_ctx=256) as reference:
        session.read(tokens)
        reference.read(tokens)
        keep_streams(reference.context, True)
        for i in range(12):
            pending = random_tokens(model, 1, seed=i)
            thresholds = [middle(session, pending, k, 2) for k in (0, 1)]
            draft = draft_by_exits(session, pending, thresholds=thresholds, limit=6)
            text = [*pending, *draft.tokens]
            for j, token in enumerate(text):
                reference.step([token])
                guesses = []
                for k, layer in enumerate(layers):
                    stream = kept_stream(reference.context, layer, -1, model.n_embd)
                    guesses.append(guess(rows @ (weights[k] @ (stream * norms[k]))))
                margins = [abs(entropy - thresholds[k]) for k, (_, entropy) in enumerate(guesses)]
                if min(margins) < 0.1 or (j == len(text) - 1 and len(draft.tokens) == 6):
                    continue  # eight bits may decide it, or the limit
                sure = [k for k in (0, 1) if guesses[k][1] <= thresholds[k]]
                if j == len(text) - 1:
                    assert not sure
                else:
                    assert draft.sources[j] == exit_name(layers[sure[0]])
                    assert draft.tokens[j] in guesses[sure[0]][0]
                    by.append(draft.sources[j])
            reference.rollback(30)
    assert set(by) == {exit_name(layer) for layer in layers}


def guess(logits: Weights) -> tuple[list[int], float]:
    """The likeliest tokens, as near as eight bits tell, and the entropy."""
    parts = np.exp(logits - logits.max())
    p = parts / parts.sum()
    near = np.flatnonzero(logits > logits.max() - 0.5)
    return near.tolist(), float(-(p * np.log(p + 1e-30)).sum())


def lm_head(model: Model) -> Weights:
    tensors = {each.name: each for each in gguf.GGUFReader(model.path).tensors}
    found = tensors["output.weight"]
    return gguf.dequantize(found.data, found.tensor_type).astype(np.float32)


def test_unsure_exits_leave_a_text_alone(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)

    def between(session: Session) -> None:
        if not session.draft_vocabulary:
            set_taught_exits(session, (1, 3), *random_exits(model, 2))
            session.set_draft_vocabulary(range(model.n_vocab))
        draft_by_exits(session, [7], thresholds=[4.0, ALWAYS], limit=5)

    assert_undisturbed(model, random_tokens(model, 60), 20, between)


def test_states_are_not_used_when_something_came_between(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    with with_exits(model, (1, 3)) as session:
        session.read(random_tokens(model, 20))
        draft = draft_by_exits(session, [7], thresholds=[NEVER, ALWAYS], limit=4)
        assert len(draft.tokens) == 4
        session.step([9])
        session.rollback(20)
        found = verify(session, [7], draft)
        assert session.exits_reused == 0
        session.rollback(20)
        assert_same_bits(found, step(session, [7, *draft.tokens]))


def test_part_of_a_draft(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    with with_exits(model, (1, 3)) as session:
        session.read(random_tokens(model, 20))
        draft = draft_by_exits(session, [7], thresholds=[ALWAYS, ALWAYS], limit=6)
        assert draft.sources == (exit_name(1),) * 6
        found = verify(session, [7], draft.first(3))
        assert session.exits_reused == 1
        session.rollback(20)
        assert_same_bits(found, step(session, [7, *draft.tokens[:3]]))


def test_a_context_that_is_nearly_full(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    tokens = random_tokens(model, 64)
    with with_exits(model, (1, 3), n_ctx=64) as session:
        session.read(tokens[:59])
        draft = draft_by_exits(session, tokens[59:61], thresholds=[ALWAYS, ALWAYS], limit=9)
        assert len(draft.tokens) == 3
        found = verify(session, tokens[59:61], draft)
        assert session.room == 0 and session.exits_reused == 1
        session.rollback(59)
        assert_same_bits(found, step(session, [*tokens[59:61], *draft.tokens]))
        assert draft_by_exits(session, [5], thresholds=[ALWAYS, ALWAYS], limit=9) == Draft()


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
def test_a_kept_stream_is_what_enters_its_layer(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4, quant="f32")
    text = random_tokens(model, 6)
    head = lm_head(model)
    with open_session(model) as session:
        session.read(random_tokens(model, 20, 1))
        plain = step(session, text)
        session.rollback(20)
        keep_streams(session.context, True)
        assert_same_bits(step(session, text), plain)
        exits = np.stack([kept_stream(session.context, 3, i, model.n_embd) for i in range(6)])
        assert (exits**2).mean(-1) == pytest.approx(1.0, rel=1e-3)
        # The same place under a mask that drops what comes after it.
        states = [output_state(session.context, i, model.n_embd) for i in range(6)]
        assert head @ states[2] == pytest.approx(plain[2], rel=1e-3, abs=1e-3)
        session.rollback(20)
        keep_streams(session.context, False)
        session.set_mask(LayerMask.layers([3]))
        step(session, text)
        normed = np.stack([output_state(session.context, i, model.n_embd) for i in range(6)])
        tensors = {each.name: each for each in gguf.GGUFReader(model.path).tensors}
        norm = np.array(tensors["output_norm.weight"].data, dtype=np.float32)
        assert exits * norm == pytest.approx(normed, rel=1e-2, abs=1e-3)
        with pytest.raises(EdgeConflayersError, match="no inner state"):
            kept_stream(session.context, 3, 0, model.n_embd)


def test_what_is_missing_is_named(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    norms, weights = random_exits(model, 2)
    with open_session(model) as session:
        session.read(random_tokens(model, 5))
        with pytest.raises(BadInput, match="there are no taught exits"):
            draft_by_exits(session, [5], thresholds=[1.0, 1.0], limit=3)
        set_taught_exits(session, (1, 3), norms, weights)
        with pytest.raises(BadInput, match="without a draft vocabulary"):
            draft_by_exits(session, [5], thresholds=[1.0, 1.0], limit=3)
        session.set_draft_vocabulary([5, 6, 7])
        with pytest.raises(BadInput, match="one threshold for each"):
            draft_by_exits(session, [5], thresholds=[1.0], limit=3)
        assert set(draft_by_exits(session, [5], thresholds=[9, 9], limit=3).tokens) <= {5, 6, 7}
        assert draft_by_exits(session, [5], thresholds=[NEVER, NEVER], limit=3) == Draft()
        for layers in ((0, 2), (3, 1), (2, 2), (1, 4)):
            with pytest.raises(BadInput, match="ascending layers"):
                set_taught_exits(session, layers, norms, weights)
        with pytest.raises(ValueError, match="shapes"):
            set_taught_exits(session, (1,), norms, weights)


def test_recurrent_architectures_are_refused_by_name(tiny: Tiny) -> None:
    model = tiny("mamba", n_layer=4)
    with open_session(model, n_ctx=64) as session, pytest.raises(BadInput, match="'mamba'"):
        set_taught_exits(session, (1,), *random_exits(model, 1))
