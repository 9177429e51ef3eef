"""``run``, ``bench``, ``cost`` and ``tune`` on a folder."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from steps import TinyPath

from edge_conflayers.errors import BadInput
from edge_conflayers.methods import METHODS, STATES_METHODS

FolderOf = Callable[..., Path]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))


@pytest.fixture
def folder(folder_of: FolderOf) -> Path:
    return folder_of("llama", n_layer=6, layer_gain=0.2)


def call(command: str, *arguments: object) -> Result:
    module = importlib.import_module(f"edge_conflayers.cli.{command}")
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(getattr(module, command), given)


def run(model: Path, *arguments: object) -> Result:
    prompt = ("-p", "the the the the", "-t", 1, "-c", 256, "-n", 40)
    return call("run", model, *prompt, *arguments)


def test_every_method_writes_the_same_text(folder: Path, tiny_path: TinyPath) -> None:
    plain = run(folder, "--method", "plain")
    assert plain.exit_code == 0 and plain.stdout.strip()
    settings = {"context_length": 512, "n_layer": 6, "layer_gain": 0.2}
    seconds = (folder, tiny_path("llama", **settings))
    for method in METHODS:
        if method in STATES_METHODS:
            with pytest.raises(BadInput, match="needs hidden states"):
                _raise(run(folder, "--method", method))
            continue
        for second in seconds if "draft-model" in method else (None,):
            given = () if second is None else ("--draft-model", second)
            for _ in range(2):  # what the first run learned is there in the second
                done = run(folder, "--method", method, *given)
                assert done.exit_code == 0, done.output
                assert done.stdout == plain.stdout
                assert done.stderr.startswith(f"{method}: ")


def _raise(done: Result) -> None:
    assert done.exception is not None
    raise done.exception


def test_a_text_under_a_schema(folder: Path) -> None:
    schema = '{"enum": ["a longer text", {"a": [1, 2, 3, 4, 5, 6]}]}'
    texts = {
        method: run(folder, "--json-schema", schema, "--method", method, "--temp", 0.7).stdout
        for method in ("plain", "lookup", "auto")
    }
    assert len(set(texts.values())) == 1
    assert json.loads(texts["plain"]) in ("a longer text", {"a": [1, 2, 3, 4, 5, 6]})


def test_statistics_and_the_seed(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "stats.json"
    done = run(folder, "--temp", 1.0, "--seed", 7, "--stats-json", file, "--method", "lookup")
    assert done.exit_code == 0
    stats = json.loads(file.read_text())
    assert stats["model"] == str(folder) and stats["method"] == "lookup"
    assert run(folder, "--temp", 1.0, "--seed", 7, "--method", "plain").stdout == done.stdout


def test_options_that_a_folder_does_not_take(folder: Path) -> None:
    for options, words in (
        (("-ngl", 3), "--provider instead of -ngl"),
        (("--kernels", "ecl"), "leave out --kernels"),
        (("-ctk", "q8_0", "--rope-scale", "2"), "leave out --cache-type-k, --rope-freq-scale"),
        (("--lora", "a.gguf"), "leave out --lora"),
        (("--provider", "nonsense"), "choose from cpu"),
        (("-c", 4000), "give -c 511 or less"),
    ):
        done = run(folder, *options)
        assert isinstance(done.exception, BadInput) and words in str(done.exception)
    assert run(folder, "--provider", "cpu").exit_code == 0


def test_bench(folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.json"
    prompts.write_text("the the the the\n\none two one two\n")
    options = ("--prompts", prompts, "-n", 24, "-t", 1, "-c", 256, "--json", out)
    done = call("bench", folder, *options, "--methods", "plain,lookup,recycling,auto")
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["model"] == folder.name and report["complete"]
    for name in ("lookup", "recycling", "auto"):
        assert report["methods"][name]["identical"] is True
    with pytest.raises(BadInput, match=r"runs \.gguf files"):
        _raise(call("bench", folder, *options, "--methods", "plain,upstream"))


def test_cost(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    options = ("--context", 16, "--repeat", 1, "-t", 1, "--json", out)
    done = call("cost", folder, *options)
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["t1_ms"] > 0 and len(report["v"]) == 15 and len(report["c"]) > 2
    assert "onnxruntime" in done.output


def test_tune(folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the the the the\n\none two one two\n")
    options = ("--prompts", prompts, "--budget", 2, "-n", 64, "-t", 1, "--raw")
    done = call("tune", folder, *options)
    assert done.exit_code == 0, done.output
    plain = run(folder, "--method", "plain")
    for method in ("measured", "auto"):
        assert run(folder, "--method", method).stdout == plain.stdout
