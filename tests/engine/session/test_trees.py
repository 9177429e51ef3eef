"""Trees of drafted tokens: every branch as if decoded alone, and no trace of the rest."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from steps import (
    Logits,
    RealModel,
    Tiny,
    TinyPath,
    assert_same_bits,
    open_session,
    random_tokens,
    saved_bytes,
    step,
    verify,
)

from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import ContextFull, LayerMask, Session
from edge_conflayers.errors import EdgeConflayersError

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "multi-query": ("llama", {"n_head_kv": 1, "n_head": 8, "head_dim": 32}),
    "narrow-heads": ("llama", {"head_dim": 24}),  # for the narrower instruction set
    "qwen2": ("qwen2", {"n_embd": 128, "quant": "q8_0"}),
    "gemma2": ("gemma2", {}),  # softcapped scores
    "gemma3": ("gemma3", {}),  # a window of 64
    "window-within-the-tree": ("gemma3", {"sliding_window": 3}),
    "gpt2": ("gpt2", {}),  # positions are looked up
    "experts": ("olmoe", {}),
}
# From one token on, and around the ends of the attention kernel's chunks of 128 cells.
PREFIXES = (1, 50, 116, 121, 125, 126, 127, 128, 129, 130, 134, 250, 254, 255, 256, 259)

kernels_only = pytest.mark.skipif(
    not binding.kernels()["enabled"], reason="this CPU or build has no kernels of ours"
)


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("trees are verified on the CPU only")


def random_tree(model: Model, n: int, seed: int) -> Draft:
    """A tree that is no chain, of at least two tokens."""
    source = random.Random(seed)
    parents = [source.choice([i - 1, i - 1, source.randrange(-1, i)]) for i in range(n)]
    parents[-1] = source.randrange(-1, n - 2) if n > 2 else ROOT
    return Draft(tuple(random_tokens(model, n, seed)), (1.0,) * n, tuple(parents))


def one_by_one(session: Session, pending: Sequence[int], draft: Draft) -> Logits:
    """The same from one-token steps along every branch."""
    rows = [step(session, [token])[0] for token in pending]
    begin = len(session)

    def branches(parent: int) -> Iterator[tuple[int, Logits]]:
        length = len(session)
        for i, token in enumerate(draft.tokens):
            if draft.parent(i) == parent:
                yield i, step(session, [token])[0]
                yield from branches(i)
                session.rollback(length)

    drafted = dict(branches(ROOT))
    assert len(session) == begin
    return np.stack(rows + [drafted[i] for i in range(len(drafted))])


def first_row(draft: Draft) -> int:
    """How many of the drafted tokens follow the one before them, from the first on."""
    row = 0
    while row < len(draft.tokens) and draft.parent(row) == row - 1:
        row += 1
    return row


def check_trees(model: Model, prefixes: Sequence[int], **settings: Any) -> None:
    with open_session(model, **{"n_ctx": 512, **settings}) as session:
        assert session.verifies_trees
        for seed, prefix in enumerate(prefixes):
            session.clear()
            text = random_tokens(model, prefix, seed)
            session.read(text)
            pending = random_tokens(model, 1 + seed % 3, seed + 100)
            draft = random_tree(model, (2, 5, 9, 14, 29)[seed % 5], seed)
            found = verify(session, pending, draft)
            row = [*pending, *draft.tokens[: first_row(draft)]]
            assert session.tokens == [*text, *row]
            session.rollback(prefix)
            assert_same_bits(found, one_by_one(session, pending, draft))


@kernels_only
@pytest.mark.parametrize("kind", MODELS)
def test_branches_have_the_bits_of_plain_decoding(tiny: Tiny, kind: str) -> None:
    arch, settings = MODELS[kind]
    check_trees(tiny(arch, **settings), PREFIXES)


@kernels_only
@pytest.mark.parametrize(
    "settings", [{"threads": 2}, {"kv_type": "f32"}], ids=["threads", "f32-cache"]
)
def test_branches_in_other_sessions(tiny: Tiny, settings: dict[str, Any]) -> None:
    check_trees(tiny("llama"), (126, 250), **settings)


@kernels_only
def test_a_tree_under_a_layer_mask(tiny: Tiny) -> None:
    model = tiny("llama")
    with open_session(model, n_ctx=256) as session:
        session.set_mask(LayerMask(attention=frozenset({1}), mlp=frozenset({2})))
        session.read(random_tokens(model, 125))
        draft = random_tree(model, 9, 1)
        found = verify(session, [5], draft)
        session.rollback(125)
        assert_same_bits(found, one_by_one(session, [5], draft))


@pytest.mark.model
@kernels_only
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_branches_of_registry_models(real_model: RealModel, name: str) -> None:
    check_trees(real_model(name), (7, 122), threads=2)


def speculate(session: Session, tokens: Sequence[int], seed: int) -> list[tuple[int, Logits]]:
    """Goes on through a known text with random trees around its tokens, which lie sometimes in the
    first row and sometimes in other branches: positions and their logits, in the order seen."""
    source = random.Random(seed)
    seen: list[tuple[int, Logits]] = []
    pending = [tokens[len(session)]]
    while len(session) + len(pending) < len(tokens) - 8:
        begin, known = len(session), len(session) + len(pending)
        tree = random_tree(session.model, source.randint(2, 20), source.randrange(10**6))
        drafted, path, parent = list(tree.tokens), [], ROOT
        for i in range(len(drafted)):
            if tree.parent(i) == parent and source.random() < 0.8 and len(path) < 8:
                drafted[i] = tokens[known + len(path)]
                path.append(i)
                parent = i
        found = verify(session, pending, Draft(tuple(drafted), tree.probabilities, tree.parents))
        nodes = [*range(len(pending)), *(len(pending) + i for i in path)]
        seen.extend((begin + k, found[node]) for k, node in enumerate(nodes))
        kept = sum(k == i for k, i in enumerate(path))
        session.rollback(known + kept)
        pending = list(tokens[known + kept : known + len(path) + 1])
    seen.extend(enumerate(step(session, pending), len(session) - len(pending)))
    return seen


@kernels_only
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_what_follows_a_tree_has_plain_bits(tiny: Tiny, arch: str) -> None:
    """With gemma3 through a ring of 256 cells, gone around nearly twice."""
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, 490)
    settings: dict[str, Any] = {"n_ctx": 512, "batch": 64}
    with open_session(model, **settings) as session:
        session.read(tokens[:100])
        plain = np.concatenate([step(session, [token]) for token in tokens[100:]])
    for seed in range(3):
        with open_session(model, **settings) as session:
            session.read(tokens[:100])
            seen = speculate(session, tokens, seed)
            assert session.tokens == tokens[: len(session)] and len(session) > 470
        assert {position for position, _ in seen} == set(range(100, len(session)))
        expected = np.stack([plain[position - 100] for position, _ in seen])
        assert_same_bits(np.stack([logits for _, logits in seen]), expected)


@kernels_only
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_a_tree_leaves_the_cache_of_plain_decoding(tiny: Tiny, arch: str) -> None:
    """Keys, values, positions and cells, to the byte."""
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, 330)
    with open_session(model, n_ctx=512, batch=64) as session:
        session.read(tokens[:300])
        for token in tokens[300:]:
            session.step([token])
        plain = saved_bytes(session)
    with open_session(model, n_ctx=512, batch=64) as session:
        session.read(tokens[:300])
        speculate(session, [*tokens, *[9] * 8], 1)
        assert session.tokens[:330] == tokens
        session.rollback(330)
        assert saved_bytes(session) == plain


@kernels_only
def test_trees_of_one_size_share_a_graph(tiny: Tiny) -> None:
    model = tiny("llama")
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 20))
        session.verify([5], random_tree(model, 9, 0))
        session.rollback(20)
        built = session.graph_stats().built
        for seed in range(1, 6):
            draft = random_tree(model, 9, seed)
            found = verify(session, [5], draft)
            session.rollback(20)
            assert session.graph_stats().built == built
            with open_session(model, n_ctx=256) as other:
                other.read(random_tokens(model, 20))
                assert_same_bits(found, one_by_one(other, [5], draft))


@kernels_only
def test_a_tree_that_is_a_chain_is_an_ordinary_step(tiny: Tiny) -> None:
    model = tiny("llama")
    tokens = tuple(random_tokens(model, 4))
    with open_session(model, n_ctx=64, flash_attention=False) as session:
        assert not session.verifies_trees
        session.verify([5], Draft(tokens, (1.0,) * 4, (ROOT, 0, 1, 2)))
        assert session.tokens == [5, *tokens]


@kernels_only
def test_asking_whether_trees_are_verified_keeps_the_last_steps_logits(tiny: Tiny) -> None:
    model = tiny("gemma3")
    tokens = random_tokens(model, 12)
    with open_session(model, n_ctx=64) as session:
        session.read(tokens)
        before = session.logits().copy()
        assert session.verifies_trees
        assert_same_bits(session.logits()[None], before[None])
        after = step(session, tokens[:1])
    with open_session(model, n_ctx=64) as session:
        session.read(tokens)
        assert_same_bits(after, step(session, tokens[:1]))


@kernels_only
def test_a_tree_that_does_not_fit(tiny: Tiny) -> None:
    model = tiny("llama")
    text = random_tokens(model, 60)
    draft = random_tree(model, 4, 0)
    with open_session(model, n_ctx=64) as session:
        session.read(text)
        with pytest.raises(ContextFull, match="5 more tokens"):
            session.verify([5], draft)
        assert session.tokens == text
        found = verify(session, [5], draft.first(3))
        session.rollback(60)
        assert_same_bits(found, one_by_one(session, [5], draft.first(3)))
        session.clear()
        with pytest.raises(EdgeConflayersError, match="1 to 32 tokens, not 33"):
            session.verify([5], random_tree(model, 32, 0))
        assert len(session) == 0
    with (
        open_session(model, n_ctx=64, max_outputs=4) as session,
        pytest.raises(EdgeConflayersError, match="at most 4 tokens"),
    ):
        session.verify([5], draft)


@kernels_only
@pytest.mark.parametrize("parents", [(-1, 1), (-1, -2), (0, 0)])
def test_tokens_follow_earlier_ones(tiny: Tiny, parents: tuple[int, int]) -> None:
    with open_session(tiny("llama"), n_ctx=64) as session:
        status = binding.ecl_step_tree(
            *(session.handle, (ctypes.c_int32 * 2)(5, 6), (ctypes.c_int32 * 2)(*parents)),
            *(2, 0, 0, binding.OUTPUTS_ALL),
        )
        assert status == binding.BAD_ARGUMENT
        assert b"cannot follow" in binding.ecl_last_error(session.handle)


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "no-flash": ("llama", {}, {"flash_attention": False}, "flash attention is off"),
    "quantized-cache": (
        "llama",
        {"n_embd": 128},
        {"flash_attention": True, "kv_type": "q8_0"},
        "keys and values",
    ),
    "odd-heads": ("llama", {"head_dim": 20}, {}, "keys and values"),
    "recurrent": ("mamba", {}, {}, "recurrent"),
}


def check_refused(session: Session, why: str) -> None:
    text = random_tokens(session.model, 12)
    session.read(text)
    before = session.logits().copy()
    assert not session.verifies_trees
    with pytest.raises(EdgeConflayersError, match=f"trees .* {why}"):
        session.verify([5], random_tree(session.model, 4, 0))
    assert session.tokens == text
    assert_same_bits(session.logits()[None], before[None])


@pytest.mark.parametrize("kind", REFUSED)
def test_trees_are_refused_beforehand(tiny: Tiny, kind: str) -> None:
    arch, shape, settings, why = REFUSED[kind]
    with open_session(tiny(arch, **shape), n_ctx=64, **settings) as session:
        check_refused(session, why)


@kernels_only
def test_trees_are_refused_with_upstreams_kernels(tiny_path: TinyPath) -> None:
    with (
        Model(tiny_path("llama"), kernels="upstream") as model,
        open_session(model, n_ctx=64) as session,
    ):
        check_refused(session, "CPU kernel")
