"""Drafts over bridges, and the states that they start from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gguf_models import FAMILIES
from steps import Tiny, assert_undisturbed, kept_logits, open_session, random_tokens, step

from edge_conflayers.bridges.regression import across
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.branches import branches
from edge_conflayers.engine.session.bridges import bridge_states, draft_beside, set_bridges
from edge_conflayers.errors import BadInput

Floats = npt.NDArray[np.float32]

BLOCKS = [[(1, 3)], [(0, 1)], [(2, 5)], [(0, 2), (3, 5)]]


@pytest.fixture(autouse=True)
def on_the_cpu(gpu_layers: int) -> None:
    if gpu_layers:
        pytest.skip("bridges compute on the CPU")


def random_map(model: Model, seed: int, size: float = 0.02) -> Floats:
    shape = (model.n_embd, 3 * model.n_embd + 1)
    return (size * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def no_map(model: Model) -> Floats:
    return np.zeros((model.n_embd, 3 * model.n_embd + 1), dtype=np.float32)


def mask_of(blocks: list[tuple[int, int]]) -> LayerMask:
    return LayerMask.layers(i for begin, end in blocks for i in range(begin, end))


def read_to(session: Session, tokens: list[int]) -> None:
    """Reads all but the last few tokens as a prompt, these in a step that keeps states."""
    session.read(tokens[:-4])
    session.step(tokens[-4:], outputs="all")


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize("arch", FAMILIES)
def test_a_map_of_zeros_changes_nothing(
    tiny: Tiny, arch: str, blocks: list[tuple[int, int]]
) -> None:
    """A draft over it is that under the mask alone, bit for bit."""
    model = tiny(arch, n_layer=6)
    tokens = random_tokens(model, 24)
    mask = mask_of(blocks)
    with open_session(model, n_ctx=128) as session:
        set_bridges(session, [(*block, no_map(model)) for block in blocks])
        read_to(session, tokens)
        states = bridge_states(session, [1, 2, 3], len(blocks))
        assert states is not None
        for pending in ([5], [5, 6, 7]):
            plain = session.draft(mask, pending, limit=6, stop_probability=0.0, runners_up=2)
            before = states[-len(pending) :]
            bridged = session.draft(
                mask, pending, limit=6, stop_probability=0.0, runners_up=2, before=before
            )
            assert bridged == plain and len(plain.tokens) >= 3
        session.set_draft_vocabulary(range(0, model.n_vocab, 2))
        plain = session.draft(mask, [5], limit=6, stop_probability=0.0)
        assert session.draft(mask, [5], limit=6, stop_probability=0.0, before=states[2:]) == plain


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
def test_the_states_are_what_enters_the_layers(
    tiny: Tiny, arch: str, blocks: list[tuple[int, int]]
) -> None:
    """Of full steps over a few tokens, of trees too; steps over many and masked ones keep none."""
    model = tiny(arch, n_layer=6, quant="f32")
    tokens = random_tokens(model, 24)
    ends = [layer for block in blocks for layer in block]
    with open_session(model, n_ctx=128) as session:
        session.read(tokens[:20])
        streams = branches(session, tokens[20:], 20, stream="all")
        assert streams is not None
        set_bridges(session, [(*block, no_map(model)) for block in blocks])
        logits = step(session, tokens[20:])
        found = bridge_states(session, [0, 3, 1], len(blocks))
        assert found is not None
        wanted = streams[ends, 0][:, [0, 3, 1]].swapaxes(0, 1).reshape(found.shape)
        assert np.array_equal(found, wanted)
        set_bridges(session, [])
        session.rollback(20)
        assert np.array_equal(step(session, tokens[20:]), logits)  # keeping them changes nothing
        set_bridges(session, [(*block, no_map(model)) for block in blocks])
        assert bridge_states(session, [0], len(blocks)) is None  # the step was before
        if session.verifies_trees:
            session.rollback(20)
            tree = Draft((tokens[21], 9, tokens[22]), parents=(-1, -1, 0))
            session.verify(tokens[20:21], tree)
            found = bridge_states(session, [0, 1, 3], len(blocks))
            assert found is not None
            wanted = streams[ends, 0][:, :3].swapaxes(0, 1).reshape(found.shape)
            assert np.array_equal(found, wanted)
        session.set_mask(LayerMask.layers({1}))
        session.step([7])
        assert bridge_states(session, [0], len(blocks)) is None
        session.set_mask(LayerMask())
        session.read(random_tokens(model, 40))
        assert bridge_states(session, [0], len(blocks)) is None


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
def test_a_draft_goes_on_from_what_the_maps_say(tiny: Tiny, arch: str) -> None:
    """Its tokens are those of the layers after the block, run from states that numpy computes."""
    model = tiny(arch, n_layer=6, quant="f32", layer_gain=0.3)
    begin, end = 1, 4
    tokens = random_tokens(model, 30)
    weights = random_map(model, 1)
    everything = range(model.n_layer)
    with open_session(model, n_ctx=256, flash_attention=False) as session:
        set_bridges(session, [(begin, end, weights)])
        read_to(session, tokens)
        before = bridge_states(session, [3], 1)
        assert before is not None
        drafted = session.draft(
            LayerMask.layers(range(begin, end)), [5], limit=4, stop_probability=0.0, before=before
        )
        text = [*tokens, 5, *drafted.tokens[:3]]
        states = before[0, 0]
        wanted: list[float] = []
        with open_session(model, n_ctx=256, flash_attention=False) as other:
            other.read(tokens)
            for i in range(4):
                # Layers after the block attend to the draft's own keys and values.
                place, first = len(tokens) + i, LayerMask.layers(range(begin, model.n_layer))
                other.rollback(len(tokens))
                entering = branches(
                    other, text[len(tokens) : place + 1], len(tokens), mask=first, stream=begin - 1
                )
                assert entering is not None
                rows = []
                states = before[0, 0]
                for x in entering[0]:
                    leaving = across(weights, x[None], states[None, 0], states[None, 1])[0]
                    rows.append(leaving)
                    states = np.stack([x, leaving])
                branches(
                    other,
                    text[len(tokens) : place + 1],
                    len(tokens),
                    mask=LayerMask.layers(layer for layer in everything if layer < end),
                    states=np.stack(rows)[None],
                    outputs="last",
                )
                chances = np.exp(other.logits() - other.logits().max())
                wanted.append(chances[drafted.tokens[i]] / chances.sum())
                assert wanted[-1] > 0.95 * chances.max() / chances.sum()
        assert drafted.probabilities == pytest.approx(wanted, rel=0.05)  # the map has 8 bits


def test_drafts_leave_the_text_as_it_is(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    mask, weights = LayerMask.layers(range(1, 4)), random_map(model, 3)
    before = np.ones((2, 1, 2, model.n_embd), dtype=np.float32)

    def draft(session: Session) -> None:
        set_bridges(session, [(1, 4, weights)])
        session.draft(mask, [5, 6], limit=5, stop_probability=0.0, before=before)
        draft_beside(session, mask, 18, before[:1], limit=5, stop_probability=0.0)

    assert_undisturbed(model, random_tokens(model, 30), 20, draft)


def test_a_draft_beside_the_text_is_one_after_it(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    mask = LayerMask.layers(range(1, 4))
    tokens = random_tokens(model, 24)
    with open_session(model, n_ctx=128) as session:
        set_bridges(session, [(1, 4, random_map(model, 3))])
        read_to(session, tokens)
        before = bridge_states(session, [1], 1)
        beside = draft_beside(session, mask, 22, before, limit=5, stop_probability=0.0)
        session.rollback(22)
        after = session.draft(mask, tokens[22:23], limit=5, stop_probability=0.0, before=before)
        assert beside is not None  # in other cells, which attention adds up in another order
        assert tuple(token for token, _ in beside) == after.tokens
        assert [p for _, p in beside] == pytest.approx(after.probabilities, rel=1e-3)


def test_what_cannot_be_is_refused(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=6)
    weights = no_map(model)
    with open_session(model, n_ctx=128) as session:
        for wrong in (
            [(3, 3)],
            [(-1, 2)],
            [(2, 6)],
            [(1, 3), (3, 5)],
            [(3, 5), (1, 2)],
        ):
            with pytest.raises(BadInput, match="no bridge from layer"):
                set_bridges(session, [(*block, weights) for block in wrong])
        with pytest.raises(BadInput, match="there are no bridges"):
            bridge_states(session, [0], 1)
        set_bridges(session, [(1, 3, weights)])
        read_to(session, random_tokens(model, 24))
        before = bridge_states(session, [3], 1)
        with pytest.raises(BadInput, match="keeps a layer"):
            session.draft(LayerMask.layers({1}), [5], limit=2, stop_probability=0.0, before=before)
        set_bridges(session, [])
        with pytest.raises(BadInput, match="no bridges to draft over"):
            session.draft(
                LayerMask.layers({1, 2}), [5], limit=2, stop_probability=0.0, before=before
            )
        assert kept_logits(session, 4).shape == (4, model.n_vocab)
