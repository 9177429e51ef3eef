"""Sessions on ONNX Runtime: steps, masks, rollback, drafts beside the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_folders import Opened
from steps import ModelAt, TinyPath, assert_same_bits, random_tokens

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import ContextFull, LayerMask, TextSession
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.onnx.model import OnnxModel

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
TARGETS = ("ort", "standard")
MASK = LayerMask(frozenset({1, 2}), frozenset({2}))


def settings_of(arch: str) -> dict[str, Any]:
    return {"sliding_window": 16} if arch == "gemma3" else {}


def plain_rows(session: TextSession, tokens: list[int]) -> Any:
    rows = []
    for token in tokens:
        session.step([token], outputs="all")
        rows.append(session.logits(0).copy())
    return np.stack(rows)


def kept_rows(session: TextSession, n: int) -> Any:
    return np.stack([session.logits(i) for i in range(n)])


@pytest.fixture(params=[(a, t) for a in ARCHITECTURES for t in TARGETS], ids="-".join)
def model(request: pytest.FixtureRequest, opened: Opened) -> OnnxModel:
    arch, target = request.param
    return opened(arch, target=target, **settings_of(arch))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_writes_llama_cpps_tokens(
    tiny_path: TinyPath, model_at: ModelAt, opened: Opened, arch: str, target: str
) -> None:
    """Prompt, steps of several sizes and a masked step, to the same best tokens."""
    settings = {"context_length": 512, **settings_of(arch)}
    theirs = model_at(tiny_path(arch, **settings))
    ours = opened(arch, target=target, **settings_of(arch))
    tokens = random_tokens(theirs, 60)
    assert ours.n_vocab == theirs.n_vocab
    assert ours.tokenize("two words") == theirs.tokenize("two words")
    found = []
    for model in (theirs, ours):
        with model.open_session(n_ctx=128, threads=1) as session:
            session.read(tokens[:40])
            best = [session.best()]
            for size in (1, 2, 5, 8):
                session.step(tokens[len(session) : len(session) + size], outputs="all")
                best += [session.best(i) for i in range(size)]
            session.set_mask(MASK)
            session.step(tokens[56:58], outputs="all")
            best += [session.best(i) for i in range(2)]
            found.append(best)
    for (token, probability), (other, same) in zip(*found, strict=True):
        assert token == other
        assert probability == pytest.approx(same, rel=2e-2)


def test_a_batch_has_the_bits_of_plain_steps(model: OnnxModel) -> None:
    """As far as it may verify drafts; rolled back ones leave nothing."""
    tokens = random_tokens(model, 80)
    with model.open_session(n_ctx=128, threads=1) as session:
        session.read(tokens[:40])
        plain = plain_rows(session, tokens[40:56])
        most = session.most_verified
        assert most > 1
        for size in range(2, most + 1):
            session.rollback(40)
            session.verify(tokens[40:41], Draft(tuple(tokens[41 : 40 + size])))
            assert_same_bits(kept_rows(session, size), plain[:size])
        session.rollback(44)
        assert_same_bits(plain_rows(session, tokens[44:56]), plain[4:])


def test_drafts_and_replays_leave_the_text_alone(model: OnnxModel) -> None:
    tokens = random_tokens(model, 80)
    with model.open_session(n_ctx=128, threads=1) as session:
        session.read(tokens[:40])
        plain = plain_rows(session, tokens[40:56])
        session.rollback(40)
        rows = []
        for token in tokens[40:56]:
            draft = session.draft(MASK, [token], limit=5, stop_probability=0.0, runners_up=2)
            assert len(draft.tokens) == 3 * draft.chain_length > 0
            assert session.draft_exit(2, [token], limit=3, stop_probability=0.0).exit is not None
            assert session.replay(MASK, 20) is not None
            assert session.replay(MASK, 5, stretch=4) is not None
            assert session.probe(tokens[3:20]) is not None
            assert session.mask == LayerMask()
            with pytest.raises(EdgeConflayersError, match="no logits"):
                session.logits()
            session.step([token], outputs="all")
            rows.append(session.logits(0).copy())
        assert_same_bits(np.stack(rows), plain)


def test_a_draft_is_what_masked_steps_say(model: OnnxModel) -> None:
    tokens = random_tokens(model, 41)
    with model.open_session(n_ctx=128, threads=1) as session:
        session.read(tokens[:40])
        drafted = session.draft(MASK, tokens[40:], limit=6, stop_probability=0.0)
        session.set_mask(MASK)
        expected = []
        session.step(tokens[40:])
        for _ in drafted.tokens:
            expected.append(session.best())
            session.step([expected[-1][0]])
        assert drafted.tokens
        assert list(zip(drafted.tokens, drafted.probabilities, strict=True)) == expected


def test_a_replay_is_what_masked_steps_say(model: OnnxModel) -> None:
    """Along the text, and in stretches that go on from the full model's keys and values."""
    tokens = random_tokens(model, 60)
    with model.open_session(n_ctx=128, threads=1) as session:
        session.read(tokens)
        for stretch in (None, 4):
            found = session.replay(MASK, 41, 53, stretch=stretch)
            assert found is not None and len(found) == 12
            expected = []
            with model.open_session(n_ctx=128, threads=1) as other:
                for begin in (40,) if stretch is None else (40, 44, 48):
                    other.clear()
                    other.set_mask(LayerMask())
                    other.read(tokens[:begin])
                    other.set_mask(MASK)
                    other.step(tokens[begin : begin + (stretch or 12)], outputs="all")
                    expected += [other.best(i) for i in range(stretch or 12)]
            assert [token for token, _ in found] == [token for token, _ in expected]


def test_the_whole_mask_drops_everything_and_none_drops_nothing(model: OnnxModel) -> None:
    tokens = random_tokens(model, 12)
    with model.open_session(n_ctx=64, threads=1) as session:
        session.read(tokens)
        full = session.logits().copy()
        session.clear()
        session.set_mask(LayerMask.layers(range(model.n_layer)))
        session.read(tokens)
        assert np.abs(session.logits() - full).max() > 1e-3
        session.clear()
        session.set_mask(LayerMask())
        session.read(tokens)
        assert_same_bits(session.logits()[None], full[None])
        with pytest.raises(BadInput, match="there is no layer 99"):
            session.set_mask(LayerMask.layers({99}))


def test_a_full_context(model: OnnxModel) -> None:
    tokens = random_tokens(model, 40)
    with model.open_session(n_ctx=32, threads=1) as session:
        with pytest.raises(ContextFull, match="40 tokens, 32 fit"):
            session.read(tokens)
        session.read(tokens[:30])
        session.step(tokens[30:31])
        session.step(tokens[31:32])  # the last place, with the padding behind it
        assert session.room == 0 and np.isfinite(session.logits()).all()
        with pytest.raises(ContextFull, match="32 of 32 are taken"):
            session.step(tokens[32:33])
        assert session.draft(MASK, tokens[32:33], limit=4, stop_probability=0.0).tokens == ()


def test_the_end_of_what_the_graph_has_positions_for(model: OnnxModel) -> None:
    with pytest.raises(BadInput, match=r"positions for 511 tokens, not 600; give -c 511 or less"):
        model.open_session(n_ctx=600)
    tokens = random_tokens(model, 511)
    with model.open_session(n_ctx=511, threads=1) as session:
        session.read(tokens[:509])
        plain = plain_rows(session, tokens[509:511])
        session.rollback(509)
        session.verify(tokens[509:510], Draft(tuple(tokens[510:511])))
        assert_same_bits(kept_rows(session, 2), plain)


def test_what_is_closed_or_was_not_kept(model: OnnxModel) -> None:
    session = model.open_session(n_ctx=64, threads=1, max_outputs=4)
    session.step([5, 6, 7], outputs="none")
    with pytest.raises(EdgeConflayersError, match="no logits for token -1"):
        session.logits()
    assert session.logits_address(0) is None
    with pytest.raises(EdgeConflayersError, match="at most 4 tokens, not 5"):
        session.step([5, 6, 7, 8, 9], outputs="all")
    with pytest.raises(EdgeConflayersError, match="no trees"):
        session.verify([5], Draft((6, 7), (0.5, 0.5), (-1, -1)))
    with pytest.raises(BadInput, match="cannot be cut down"):
        session.set_draft_vocabulary([1, 2])
    with pytest.raises(BadInput, match="no exit after 0"):
        session.draft_exit(0, [5], limit=3, stop_probability=0.0)
    session.close()
    session.close()
    with pytest.raises(EdgeConflayersError, match="is closed"):
        session.step([5])
