"""``train``, run in this process on a tiny model."""

from __future__ import annotations

import importlib
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model

from edge_conflayers.cli import main
from edge_conflayers.engine.model import Model
from edge_conflayers.onnx.gguf_file import read_gguf
from edge_conflayers.profiles import DATA_VARIABLE
from edge_conflayers.train import extra

N_LAYER = 6
TEXT = "the cat sat on the mat and the dog ran after the hat that the man had put on the shelf. "


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_model(folder / "tiny.gguf", "llama", n_layer=N_LAYER, layer_gain=0.3)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    words = TEXT.split()
    for i in range(3 * len(words)):
        at = i % len(words)
        (folder / f"{i}.txt").write_text(" ".join(words[at:] + words[:at]))
    return folder


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))


@pytest.fixture
def with_torch() -> None:
    pytest.importorskip("torch", reason="needs the `train` extra: torch is not installed")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def train(model: Path, out: Path, *more: object) -> Result:
    settings = ("--steps", 12, "--batch-size", 256, "-t", 1)
    return call("train", model, "--out", out, *settings, *more)


def losses(result: Result) -> list[float]:
    """The full model's before, after, and as stored."""
    (line,) = [each for each in result.stdout.splitlines() if each.startswith("full model")]
    return [float(each) for each in line.split()[-3:]]


def agreement(result: Result, exit: int) -> list[int]:
    line = next(x for x in result.stdout.splitlines() if x.startswith(f"exit after {exit} layers"))
    return [int(each.rstrip("%")) for each in line.split()[-3:]]


def written(model: Path, method: str) -> str:
    result = call("run", model, "-p", "the cat", "-n", 40, "--method", method, "-t", 1, "--fresh")
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("with_torch")
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("curriculum", ["rotational", "gradual", "none"])
def test_the_loss_of_texts_falls(
    tiny: Path, texts: Path, tmp_path: Path, method: str, curriculum: str
) -> None:
    out = tmp_path / "trained.gguf"
    rate = 0.003 if method == "full" else 0.02
    learning = ("--targets", "text", "-lr", rate, "--method", method)
    result = train(tiny, out, "--texts", texts, "--curriculum", curriculum, *learning)
    assert result.exit_code == 0, result.output
    before, after, stored = losses(result)
    assert after < before - 0.5 and abs(stored - after) < 0.1
    old, new = read_gguf(tiny), read_gguf(out)
    same = {key for key, value in old.header.values.items() if new.header.values[key] == value}
    assert set(old.header.values) - same == {"general.file_type"}
    assert {name: each.shape for name, each in new.tensors.items()} == {
        name: each.shape for name, each in old.tensors.items()
    }


@pytest.mark.usefixtures("with_torch")
def test_exits_learn_the_model_itself(tiny: Path, tmp_path: Path) -> None:
    """From its own texts; and what it drafts for has plain decoding's text."""
    out = tmp_path / "trained.gguf"
    result = train(tiny, out, "--method", "full", "-lr", 0.0003, "--steps", 40, "--outtype", "f16")
    assert result.exit_code == 0, result.output
    before, after, stored = agreement(result, 3)
    assert after > before + 2 and abs(stored - after) <= 1
    first, last, _ = losses(result)
    assert last == pytest.approx(first, abs=0.1)  # the full model stays what it was
    texts = {method: written(out, method) for method in ("plain", "layerskip", "del")}
    assert texts["plain"] == texts["layerskip"] == texts["del"]
    with Model(out) as model:
        assert model.n_layer == N_LAYER


@pytest.mark.usefixtures("with_torch")
def test_the_same_seed_trains_the_same(tiny: Path, texts: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf")]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        assert train(tiny, out, "--texts", texts, "--steps", 3, "--seed", seed).exit_code == 0
    first, second, third = (out.read_bytes() for out in outs)
    assert first == second != third


@pytest.mark.usefixtures("with_torch")
def test_an_interrupt_keeps_the_best_so_far(
    tiny: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = importlib.import_module("edge_conflayers.train.trainer")
    schedule = trainer._schedule
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(done: float) -> float:
        if done > 0.5:
            signal.raise_signal(signal.SIGINT)
        return float(schedule(done))

    monkeypatch.setattr(trainer, "_schedule", interrupted)
    out = tmp_path / "trained.gguf"
    more = ("--targets", "text", "--method", "full", "-lr", 0.003)
    try:
        result = train(tiny, out, "--texts", texts, *more)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "interrupted: the best so far is stored" in result.stderr
    assert "after 7 steps" in result.stdout
    first, best, _ = losses(result)
    assert best < first
    assert written(out, "plain") == written(out, "layerskip")


@pytest.mark.usefixtures("with_torch")
def test_a_learning_rate_that_is_too_high(tiny: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "trained.gguf"
    result = train(tiny, out, "--texts", texts, "-lr", 1e30)
    assert result.exit_code == 1 and "--learning-rate" in _error(result)
    assert not out.exists()


@pytest.mark.usefixtures("with_torch")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--exits", "6"), "has no exits"),
        (("--exits", "a,b"), "not a list of numbers"),
        (("--budget", 60), "--steps and --budget"),
        (("--device", "nonsense"), "can't use the device nonsense"),
        (("--texts", "missing"), "cannot be read"),
        (("--texts", "a", "--prompts", "b"), "--texts and --prompts"),
    ],
)
def test_bad_options_are_refused(
    tiny: Path, tmp_path: Path, more: tuple[object, ...], message: str
) -> None:
    result = train(tiny, tmp_path / "trained.gguf", *more)
    assert result.exit_code == 2
    assert message in _error(result)
    assert not (tmp_path / "trained.gguf").exists()


@pytest.mark.usefixtures("with_torch")
def test_bad_files_are_refused(tiny: Path, tmp_path: Path, tiny_path: Any) -> None:
    out = tmp_path / "trained.gguf"
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"no model at all")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:-4000])
    for model, message in (
        (wrong, "not a GGUF file"),
        (cut, "cut off"),
        (tiny_path("gptneox"), "gptneox model, which is not supported"),
        (tiny_path("olmoe"), "olmoe model, which is not supported"),
    ):
        result = train(model, out)
        assert result.exit_code == 2, result.output
        assert message in _error(result)
    result = train(tiny, tiny)
    assert result.exit_code == 2 and "exists" in _error(result)


def test_without_torch_it_says_what_to_install(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extra, "_PACKAGES", ("gguf", "no_such_torch"))
    result = train(tiny, tmp_path / "trained.gguf")
    assert result.exit_code == 2
    assert "pip install 'edge-conflayers[train]'" in _error(result)


def _error(result: Result) -> str:
    lines = result.stderr.strip().splitlines()
    assert lines and lines[-1].startswith(("edge-conflayers: ", "Error: ")), result.stderr
    return lines[-1]
