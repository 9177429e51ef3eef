"""The torch network computes llama.cpp's logits, and what is trained is what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gguf_models import dequantized
from steps import RealModel, TinyPath, decode, open_session, random_tokens

torch = pytest.importorskip("torch", reason="needs the `train` extra: torch is not installed")

from edge_conflayers.engine.model import Model  # noqa: E402
from edge_conflayers.engine.session import Session  # noqa: E402
from edge_conflayers.onnx.architecture import read_architecture  # noqa: E402
from edge_conflayers.onnx.gguf_file import read_gguf  # noqa: E402
from edge_conflayers.train.exit_loss import Places, backward  # noqa: E402
from edge_conflayers.train.network import Adapter, Network, read_tensors  # noqa: E402
from edge_conflayers.train.quality import HeldOut, measure  # noqa: E402
from edge_conflayers.train.texts import TrainingText, make_batch  # noqa: E402


def network_of(path: Any) -> Network:
    file = read_gguf(path)
    return Network(read_architecture(file), read_tensors(file))


def logits_of(network: Network, tokens: Sequence[int], exit: int | None = None) -> Any:
    with torch.no_grad():
        (states,) = network.states(torch.tensor([tokens]), [exit or network.architecture.n_layer])
        return network.logits(states)[0].numpy()


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"rope_factors": True, "layer_biases": True, "head_dim": 24, "tied": True}),
    ("qwen2", {"output_bias": True}),
    ("qwen3", {"head_dim": 32}),
    ("gemma3", {"n_layer": 6}),
]


@pytest.mark.parametrize(("arch", "kind"), MODELS, ids=lambda value: str(value)[:12])
def test_logits_are_llama_cpps(tiny_path: TinyPath, arch: str, kind: dict[str, Any]) -> None:
    """Of float32 weights, along a text longer than gemma3's window of 64. llama.cpp's keys and
    values are float16, hence the tolerance."""
    path = tiny_path(arch, **kind)
    with Model(path) as model:
        tokens = random_tokens(model, 100)
        with open_session(model, n_ctx=256) as session:
            wanted = decode(session, tokens, [100])
    found = logits_of(network_of(path), tokens)
    np.testing.assert_allclose(found, wanted, atol=0.06)
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.97


def test_an_exits_logits_are_those_that_it_drafts_by(tiny_path: TinyPath) -> None:
    path = tiny_path("llama", n_layer=6)
    network = network_of(path)
    with Model(path) as model, open_session(model, n_ctx=256) as session:
        tokens = random_tokens(model, 40)
        session.read(tokens[:-1])
        for exit in (1, 3, 5):
            drafted = _drafted(session, exit, tokens[-1])
            logits = logits_of(network, tokens, exit)[-1].astype(np.float64)
            assert drafted[0] == logits.argmax()
            exact = np.exp(logits - logits.max())
            assert drafted[1] == pytest.approx(exact.max() / exact.sum(), rel=0.03)


def _drafted(session: Session, exit: int, token: int) -> tuple[int, float]:
    draft = session.draft_exit(exit, [token], limit=1, stop_probability=0.0)
    return draft.tokens[0], draft.probabilities[0]


@pytest.mark.model
def test_a_real_models_logits(real_model: RealModel, tmp_path: Any) -> None:
    path = dequantized(real_model("smollm2-135m").path, tmp_path / "f32.gguf")
    with Model(path) as model:
        tokens = model.tokenize("The first ten prime numbers are 2, 3, 5, 7, 11 and so on.")
        with open_session(model, n_ctx=64) as session:
            wanted = decode(session, tokens, [len(tokens)])
    found = logits_of(network_of(path), tokens)
    np.testing.assert_allclose(found, wanted, atol=0.15)
    assert (found.argmax(1) == wanted.argmax(1)).all()


def test_padding_changes_nothing(tiny_path: TinyPath) -> None:
    network = network_of(tiny_path("llama"))
    tokens = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    with torch.no_grad():
        (both,) = network.states(tokens, [4])
        (alone,) = network.states(tokens[:1, :3], [4])
    torch.testing.assert_close(both[:1, :3], alone)


def test_dropped_layers_are_left_out_text_by_text(tiny_path: TinyPath) -> None:
    network = network_of(tiny_path("llama"))
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    dropped = [torch.zeros(3, dtype=torch.bool) for _ in range(4)]
    dropped[1][0] = dropped[2][:] = True
    with torch.no_grad():
        (found,) = network.states(tokens, [4], dropped)
        (x,) = network.states(tokens, [1])
        x = torch.cat((x[:1], network._layer(1, x[1:])))
        wanted = network._layer(3, x)
    torch.testing.assert_close(found, wanted)


def places(n: int = 4) -> Places:
    random = np.random.default_rng(0)
    texts = [TrainingText(random.integers(3, 300, 9 + i).tolist(), 1 + i) for i in range(n)]
    return Places.of(make_batch(texts), "cpu")


@pytest.mark.parametrize("targets", ["text", "model"])
def test_gradients_are_those_of_the_whole_loss(tiny_path: TinyPath, targets: str) -> None:
    """Exit by exit, against autograd through all of them at once."""
    path = tiny_path("llama")
    teacher = network_of(path) if targets == "model" else None
    weights = {2: 0.3, 4: 0.7}
    one, other = network_of(path), network_of(path)
    for network in (one, other):
        network.tensors.update({k: v + 0.01 for k, v in network.tensors.items()})
        for each in network.tensors.values():
            each.requires_grad_()
    batch = places()
    loss = backward(one, batch, weights, teacher=teacher)
    whole: Any = 0
    for states, weight in zip(other.states(batch.tokens, [2, 4]), weights.values(), strict=True):
        log = other.logits(states[batch.at]).log_softmax(-1)
        if teacher is None:
            whole = whole - weight * log[range(len(batch)), batch.target].mean()
        else:
            with torch.no_grad():
                (last,) = teacher.states(batch.tokens, [4])
                goal = teacher.logits(last[batch.at]).log_softmax(-1)
            whole = whole + weight * (goal.exp() * (goal - log)).sum(-1).mean()
    whole.backward()
    assert loss == pytest.approx(float(whole.detach()), rel=1e-4)
    for name, tensor in one.tensors.items():
        if tensor.grad is not None:
            torch.testing.assert_close(
                tensor.grad, other.tensors[name].grad, rtol=1e-3, atol=1e-5, msg=name
            )


def test_merged_adapters_compute_the_same(tiny_path: TinyPath) -> None:
    base = network_of(tiny_path("qwen2"))
    adapters = {
        name: Adapter(torch.randn(3, each.shape[1]) / 9, torch.randn(each.shape[0], 3) / 9, 2.0)
        for name, each in base.tensors.items()
        if each.ndim == 2 and name.startswith("blk.")
    }
    adapted = Network(base.architecture, base.tensors, adapters)
    merged = Network(base.architecture, adapted.merged())
    tokens = list(range(5, 25))
    assert not np.allclose(logits_of(base, tokens), logits_of(adapted, tokens), atol=0.1)
    np.testing.assert_allclose(logits_of(merged, tokens), logits_of(adapted, tokens), atol=1e-3)


def test_quality_is_counted_over_all_positions(tiny_path: TinyPath) -> None:
    network = network_of(tiny_path("llama", layer_gain=0.3))
    batches = [places(3), places(2)]
    other = network_of(tiny_path("llama", seed=1))
    quality = measure(network, HeldOut.of(batches, other), [2, 3])
    assert measure(network, HeldOut(batches), [2, 3]).trained == quality.losses
    losses: dict[int, list[float]] = {2: [], 3: [], 4: []}
    matches: dict[int, list[bool]] = {2: [], 3: []}
    for batch in batches:
        for text, at, target in zip(*batch.at, batch.target, strict=True):
            tokens = batch.tokens[text, : at + 1].tolist()
            rows = {exit: logits_of(network, tokens, exit)[-1] for exit in losses}
            for exit, row in rows.items():
                losses[exit].append(float(-torch.tensor(row).log_softmax(-1)[target]))
            for exit, found in matches.items():
                found.append(bool(rows[exit].argmax() == rows[4].argmax()))
    assert quality.tokens == len(losses[4])
    for exit, loss in losses.items():
        assert quality.losses[exit] == pytest.approx(float(np.mean(loss)), rel=1e-4)
    assert quality.agreement == pytest.approx({e: np.mean(m) for e, m in matches.items()})
    assert quality.full_loss == quality.losses[4]
    wanted = [
        _divergence(network, other, batch.tokens[text, : at + 1].tolist())
        for batch in batches
        for text, at in zip(*batch.at, strict=True)
    ]
    assert quality.trained[4] == pytest.approx(np.mean(wanted), rel=1e-4)


def _divergence(network: Network, teacher: Network, tokens: list[int]) -> float:
    goal, log = (
        torch.tensor(logits_of(each, tokens)[-1]).log_softmax(-1) for each in (teacher, network)
    )
    return float((goal.exp() * (goal - log)).sum())
