"""A replay against masked steps, and what it leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
from steps import RealModel, Tiny, assert_same_bits, decode, open_session, random_tokens, step

from edge_conflayers.engine import binding
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.engine.session.replay import replay
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import Record
from edge_conflayers.layer_search.replays import matchness, replay_records

MASK = LayerMask(attention=frozenset({1, 3}), mlp=frozenset({2, 3}))
PROMPT, TEXT = 40, 70


def written(model: Model, session: Session, prompt: int = PROMPT, n: int = TEXT) -> list[int]:
    """Puts a prompt and n tokens into the cache, those one by one, as decoding does."""
    tokens = random_tokens(model, prompt + n)
    session.read(tokens[:prompt])
    decode(session, tokens[prompt:], [1])
    return tokens


def masked_steps(session: Session, tokens: list[int], begin: int) -> list[tuple[int, float]]:
    """The masked model's choice at each position, one token a step, in the cells that a replay
    uses: after the text, in a sequence that shares what is before."""
    predictions = []
    session.set_mask(MASK)
    llama.llama_memory_seq_cp(session.context.memory, 0, 1, 0, begin - 1)
    for position in range(begin - 1, len(tokens) - 1):
        token = (binding.ctypes.c_int32 * 1)(tokens[position])
        assert binding.ecl_step(session.handle, token, 1, position, 1, binding.OUTPUTS_LAST) == 0
        predictions.append(session.best(-1))
    llama.llama_memory_seq_rm(session.context.memory, 1, -1, -1)
    session.set_mask(NO_MASK)
    return predictions


@pytest.mark.parametrize(
    ("arch", "quant"), [("llama", "f32"), ("qwen2", "q8_0"), ("qwen2", "q4_0"), ("gemma3", "q5_0")]
)
def test_a_replay_is_masked_steps_to_the_bit(tiny: Tiny, arch: str, quant: str) -> None:
    """In parts of 32 tokens, each with the masked keys and values of those before."""
    model = tiny(arch, n_layer=5, n_embd=256, n_ff=512, quant=quant, layer_gain=0.5)
    with open_session(model, n_ctx=512, max_outputs=32) as session:
        tokens = written(model, session)
        found = replay(session, MASK, PROMPT)
        assert found == masked_steps(session, tokens, PROMPT)
        assert len(found) == TEXT
        assert replay(session, MASK, PROMPT + 9, PROMPT + 30) == masked_steps(
            session, tokens[: PROMPT + 30], PROMPT + 9
        )


@pytest.mark.parametrize("stretch", [1, 8, 32])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_stretches_begin_with_the_full_models_keys_and_values(
    tiny: Tiny, arch: str, stretch: int
) -> None:
    model = tiny(arch, n_layer=5, layer_gain=0.5)
    with open_session(model, n_ctx=512, max_outputs=32) as session:
        tokens = written(model, session)
        found = replay(session, MASK, PROMPT, PROMPT + 40, stretch=stretch)
        expected = []
        for begin in range(PROMPT, PROMPT + 40, stretch):
            end = min(begin + stretch, PROMPT + 40)
            expected += masked_steps(session, tokens[:end], begin)
        assert found == expected
        assert found != replay(session, MASK, PROMPT, PROMPT + 40)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_a_replay_agrees_with_drafting(tiny: Tiny, arch: str) -> None:
    """A draft of the replayed text's own tokens sees the same keys and values; only cells, and so
    roundings, differ."""
    model = tiny(arch, n_layer=5, layer_gain=0.5)
    with open_session(model, n_ctx=512) as session:
        tokens = written(model, session)
        found = replay(session, MASK, PROMPT + 1)
        assert found is not None
        session.rollback(PROMPT)
        session.set_mask(MASK)
        for position, (token, probability) in enumerate(found, start=PROMPT):
            logits = step(session, [tokens[position]])[0]
            assert token == logits.argmax()
            exponents = np.exp(logits - logits.max(), dtype=np.float64)
            assert probability == pytest.approx(1 / exponents.sum(), rel=1e-3)


def test_without_a_mask_it_is_the_model_itself(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    with open_session(model, n_ctx=512) as session:
        session.read(random_tokens(model, PROMPT))
        for _ in range(20):
            session.step([session.best()[0]])
        records = replay_records(session, NO_MASK, PROMPT)
        assert records is not None and matchness(records) == 1.0
        masked = replay_records(session, LayerMask.layers({1, 2, 3}), PROMPT)
        assert masked is not None and matchness(masked) < 1.0


def test_matchness_is_a_share() -> None:
    assert matchness([Record(True, 0.5), Record(False, 0.9), Record(True, 0.1)]) == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2moe"])
@pytest.mark.parametrize("session_mask", [NO_MASK, LayerMask.layers({2})])
def test_text_cache_and_mask_stay(tiny: Tiny, arch: str, session_mask: LayerMask) -> None:
    model = tiny(arch, n_layer=5)
    after = random_tokens(model, 12, seed=1)
    logits = []
    for replays in (3, 0):
        with open_session(model, n_ctx=512, flash_attention=True) as session:
            session.set_mask(session_mask)
            tokens = written(model, session)
            for turn in range(replays):
                assert replay(session, MASK, PROMPT - turn) is not None
            assert session.tokens == tokens
            logits.append(decode(session, after, [1, 5]))
            session.rollback(PROMPT + TEXT + 2)
            logits.append(decode(session, after, [3]))
    assert_same_bits(logits[0], logits[2])
    assert_same_bits(logits[1], logits[3])


def test_no_room(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    with open_session(model, n_ctx=256) as session:
        tokens = written(model, session, 180, 60)
        assert replay(session, MASK, 200) is None  # the second part does not fit
        assert replay(session, MASK, 230) is not None
        assert session.tokens == tokens
        rest = step(session, tokens[:10])
    with open_session(model, n_ctx=256) as session:
        written(model, session, 180, 60)
        assert_same_bits(rest, step(session, tokens[:10]))


def test_sliding_windows(tiny: Tiny) -> None:
    """A window's cells are a ring: once it is full, what is before the text may be gone."""
    model = tiny("gemma3", n_layer=5, sliding_window=64)
    with open_session(model, n_ctx=1024, batch=32, max_outputs=32) as session:
        tokens = random_tokens(model, 700)
        replayed = []
        for begin in range(0, 700, 20):
            decode(session, tokens[begin : begin + 20], [1])
            found = replay(session, MASK, max(1, begin), None)
            replayed.append(found is not None)
            if found is not None:
                assert len(found) == len(session) - max(1, begin)
        assert replayed[0] and not replayed[-1]
        assert replayed == sorted(replayed, reverse=True)
        rest = step(session, tokens[:10])
    with open_session(model, n_ctx=1024, batch=32, max_outputs=32) as session:
        decode(session, tokens, [1])
        assert_same_bits(rest, step(session, tokens[:10]))


def test_bad_positions_and_models(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 20))
        assert replay(session, MASK, 20) == []
        for begin, end in ((0, 5), (5, 4), (3, 21)):
            with pytest.raises(ValueError, match="positions"):
                replay(session, MASK, begin, end)
        with pytest.raises(BadInput, match="no layer 5"):
            replay(session, LayerMask.layers({5}), 10)
    model = tiny("mamba")
    with open_session(model, n_ctx=256) as session:
        session.read(random_tokens(model, 20))
        with pytest.raises(BadInput, match="'mamba'"):
            replay(session, MASK, 10)


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_real_models(real_model: RealModel, name: str) -> None:
    model = real_model(name)
    tokens = model.tokenize("The quick brown fox jumps over the lazy dog. " * 8)[:60]
    with open_session(model, n_ctx=256, threads=2, max_outputs=32) as session:
        session.read(tokens[:20])
        decode(session, tokens[20:], [1])
        assert replay(session, MASK, 21) == masked_steps(session, tokens, 21)
