"""``cost``, run in this process."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model

from edge_conflayers.errors import BadInput
from edge_conflayers.hub import models as store

# The module: as an attribute of the package the name may also be the command.
command = importlib.import_module("edge_conflayers.cli.cost")


def cost(*arguments: object) -> Result:
    return CliRunner().invoke(command.cost, [str(argument) for argument in arguments])


@pytest.mark.model
def test_a_short_run_on_a_real_model(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = cost(store.resolve("smollm2-135m"), "--json", out, "--repeat", 1, "-t", 1)
    assert done.exit_code == 0, done.output
    content = json.loads(out.read_text())
    assert content["model"] == "smollm2-135m.gguf"
    assert content["t1_ms"] > 0
    assert list(content["v"]) == [str(n) for n in range(2, 17)]
    assert len(content["c"]) == 11
    assert content["c"][-1]["skip_set"] == list(range(1, 29))
    assert content["context"] == 128
    first = [line.split()[0] for line in done.stdout.splitlines()]
    assert first[:3] == ["step", "T1", "V(2)"]


def test_context_and_threads_are_used(tmp_path: Path) -> None:
    tiny, out = write_tiny_model(tmp_path / "tiny.gguf", "llama"), tmp_path / "out.json"
    done = cost(tiny, "--json", out, "--repeat", 1, "-t", 1, "--context", 300)
    assert done.exit_code == 0, done.output
    content = json.loads(out.read_text())
    assert (content["context"], content["threads"]) == (300, 1)
    assert {"machine", "upstream_version", "date", "graph_switch"} < set(content)
    assert "switching graphs: 0.00 built" in done.stdout


def test_bad_input(tmp_path: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf", "llama")
    done = cost(tiny, "--json", tmp_path / "absent" / "out.json")
    assert isinstance(done.exception, BadInput) and "cannot be written" in str(done.exception)
    assert "context is" in str(cost(tiny, "--context", 2**31 - 5).exception)
    assert isinstance(cost(tmp_path / "absent.gguf").exception, BadInput)
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    assert "not a GGUF" in str(cost(text).exception)
