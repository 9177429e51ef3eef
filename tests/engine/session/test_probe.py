"""A probe's numbers against the residual stream that they are computed from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from conflayers_reference import module_confidence
from gguf_models import FAMILIES, zero_sublayers
from steps import (
    ModelAt,
    RealModel,
    Tiny,
    TinyPath,
    assert_same_bits,
    assert_undisturbed,
    open_session,
    random_tokens,
    step,
)

from edge_conflayers.engine.binding import AFTER_ATTENTION, AFTER_FFN, BEFORE_ATTENTION
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.probe import probe, probe_stream
from edge_conflayers.errors import BadInput, EdgeConflayersError

WINDOW = 32


def stream(session: Session, layer: int, where: int) -> npt.NDArray[np.float32]:
    return probe_stream(session, layer, where, WINDOW)


def close_in_float16(confidence: float, expected: np.float16) -> bool:
    """Within one float16 step: a sub-layer's output is the difference of two float32 streams here,
    which moves its confidence by up to about 1e-6."""
    step16 = float(np.spacing(np.maximum(np.abs(expected), np.float16(1e-3))))
    return abs(float(np.float16(confidence)) - float(expected)) <= step16


def check_confidences(model: Model, *, threads: int = 1, kv_type: str = "f16") -> None:
    tokens = random_tokens(model, WINDOW)
    with open_session(model, n_ctx=256, threads=threads) as session:
        found = probe(session, tokens)
        assert found is not None
        attention, mlp = found
        assert attention.shape == mlp.shape == (model.n_layer,)
        assert attention.dtype == mlp.dtype == np.float32
        for layer in range(model.n_layer):
            before, middle, after = (
                stream(session, layer, where)
                for where in (BEFORE_ATTENTION, AFTER_ATTENTION, AFTER_FFN)
            )
            assert close_in_float16(attention[layer], module_confidence(middle - before))
            assert close_in_float16(mlp[layer], module_confidence(after - middle))


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "phi3", "gpt2", "starcoder2"])
@pytest.mark.parametrize("gain", [0.3, 3.0])
def test_confidences_are_the_published_ones(tiny: Tiny, arch: str, gain: float) -> None:
    check_confidences(tiny(arch, n_layer=5, layer_gain=gain))


@pytest.mark.parametrize("arch", ["gemma2", "gemma3", "olmo2"])
def test_outputs_are_measured_as_they_join_the_stream(tiny: Tiny, arch: str) -> None:
    """With a norm after the sub-layer, what is added is the norm's result."""
    check_confidences(tiny(arch, n_layer=5, layer_gain=2.0))


@pytest.mark.parametrize("arch", ["qwen2moe", "olmoe"])
def test_experts(tiny: Tiny, arch: str) -> None:
    check_confidences(tiny(arch, n_layer=4, layer_gain=2.0))


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"])
def test_confidences_of_real_models(real_model: RealModel, name: str) -> None:
    model = real_model(name)
    tokens = model.tokenize("The quick brown fox jumps over the lazy dog. " * 8)[:WINDOW]
    with open_session(model, n_ctx=256, threads=2) as session:
        found = probe(session, tokens)
        assert found is not None
        for layer in range(model.n_layer):
            before, middle, after = (
                stream(session, layer, where)
                for where in (BEFORE_ATTENTION, AFTER_ATTENTION, AFTER_FFN)
            )
            # Real streams reach thousands in single places, where a difference of two of them
            # keeps fewer digits: a tenth of a percent.
            for values, difference in zip(found, (middle - before, after - middle), strict=True):
                assert values[layer] == pytest.approx(module_confidence(difference), abs=1e-3)


def test_streams_of_neighbouring_layers_meet(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=5)
    with open_session(model, n_ctx=256) as session:
        assert probe(session, random_tokens(model, WINDOW)) is not None
        for layer in range(4):
            after = stream(session, layer, AFTER_FFN)
            assert after.shape == (WINDOW, model.n_embd)
            assert stream(session, layer, BEFORE_ATTENTION).shape == after.shape
            following = stream(session, layer + 1, BEFORE_ATTENTION)
            assert_same_bits(following, after[-len(following) :])
        # Nothing but the last token is needed after the last layer's attention.
        for where in (BEFORE_ATTENTION, AFTER_ATTENTION, AFTER_FFN):
            assert stream(session, 4, where).shape == (1, model.n_embd)


def test_the_first_stream_is_the_embedding(tiny: Tiny) -> None:
    """Two windows of the same first token start with the same vector, whatever follows."""
    model = tiny("llama", n_layer=5)
    first, other = random_tokens(model, WINDOW, 1), random_tokens(model, WINDOW, 2)
    other[3] = first[9]
    with open_session(model, n_ctx=256) as session:
        probe(session, first)
        row = stream(session, 0, BEFORE_ATTENTION)[9]
        probe(session, other)
        assert_same_bits(stream(session, 0, BEFORE_ATTENTION)[3], row)


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_probe_of_every_architecture(tiny: Tiny, arch: str) -> None:
    model = tiny(arch, n_layer=4)
    with open_session(model, n_ctx=128) as session:
        found = probe(session, random_tokens(model, WINDOW))
        assert found is not None
        for values in found:
            assert np.isfinite(values).all()
            assert (values > 0).all() and (values < 1).all()


def test_a_sublayer_that_adds_nothing_has_no_confidence(
    tiny_path: TinyPath, model_at: ModelAt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All-zero outputs have the flattest softmax there is."""
    source = tiny_path("llama", n_layer=4)
    model = model_at(zero_sublayers(source, tmp_path_factory.mktemp("zero") / "m.gguf", {1}, {2}))
    with open_session(model, n_ctx=128) as session:
        found = probe(session, random_tokens(model, WINDOW))
    assert found is not None
    attention, mlp = found
    assert abs(attention[1]) < 1e-5 and abs(mlp[2]) < 1e-5
    assert attention[0] > 1e-3 and mlp[1] > 1e-3


def probe_window(session: Session) -> None:
    assert probe(session, session.tokens[-WINDOW:]) is not None


@pytest.mark.parametrize("arch", ["llama", "qwen2moe", "gemma3"])
@pytest.mark.parametrize("flash", [True, False])
def test_a_probe_leaves_the_session_as_it_was(tiny: Tiny, arch: str, flash: bool) -> None:
    model = tiny(arch, n_layer=4)
    tokens = random_tokens(model, 60)

    assert_undisturbed(model, tokens, 40, probe_window, n_ctx=256, flash_attention=flash)


def test_a_probe_leaves_a_sliding_window_as_it_was(tiny: Tiny) -> None:
    """Also where the window's ring of cells begins again: after 256 tokens here."""
    model = tiny("gemma3", n_layer=4)
    tokens = random_tokens(model, 330)

    assert_undisturbed(model, tokens, 200, probe_window, n_ctx=512, batch=64)


def test_a_probe_runs_the_full_model_whatever_the_mask(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    window, tokens = random_tokens(model, WINDOW, 1), random_tokens(model, 24, 2)
    with open_session(model, n_ctx=128) as session:
        step(session, tokens[:12])
        full = probe(session, window)
        session.set_mask(LayerMask.layers({1, 2}))
        masked = probe(session, window)
        assert full is not None and masked is not None
        for one, other in zip(full, masked, strict=True):
            assert_same_bits(one, other)
        after_probe = step(session, tokens[12:])  # still under the mask
    with open_session(model, n_ctx=128) as session:
        step(session, tokens[:12])
        session.set_mask(LayerMask.layers({1, 2}))
        assert_same_bits(after_probe, step(session, tokens[12:]))


def test_no_room_for_a_window(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    tokens = random_tokens(model, 257)
    with open_session(model, n_ctx=256) as session:
        step(session, tokens[:250])
        assert probe(session, tokens[:WINDOW]) is None
        assert len(session) == 250
        rest = step(session, tokens[250:256])
    with open_session(model, n_ctx=256) as session:
        step(session, tokens[:250])
        assert_same_bits(step(session, tokens[250:256]), rest)


def test_a_window_larger_than_a_batch(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    with (
        open_session(model, n_ctx=256, batch=16) as session,
        pytest.raises(EdgeConflayersError, match="16 tokens"),
    ):
        probe(session, random_tokens(model, WINDOW))


def test_architectures_without_sublayers_are_refused(tiny: Tiny) -> None:
    model = tiny("mamba")
    with (
        open_session(model, n_ctx=128) as session,
        pytest.raises(BadInput, match="'mamba'"),
    ):
        probe(session, random_tokens(model, WINDOW))


def test_a_stream_that_was_not_probed(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=4)
    with open_session(model, n_ctx=128) as session:
        step(session, random_tokens(model, 4))
        with pytest.raises(EdgeConflayersError, match="layer 2"):
            stream(session, 2, AFTER_FFN)
        probe(session, random_tokens(model, WINDOW))
        with pytest.raises(EdgeConflayersError, match="layer 4"):
            stream(session, 4, AFTER_FFN)
