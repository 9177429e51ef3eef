"""The examples of docs/benchmarking.md, with a tiny model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from gguf_models import write_tiny_model

from edge_conflayers.cli import main

DOC = Path(__file__).resolve().parents[2] / "docs" / "benchmarking.md"


def examples() -> list[str]:
    blocks = DOC.read_text(encoding="utf-8").split("```\n")[1::2]
    return [line for block in blocks for line in block.splitlines()]


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    write_tiny_model(tmp_path / "model.gguf", "llama", n_layer=6)
    prompts = ({"category": "ab"[i % 2], "turns": [f"Name {i + 2} fruits."]} for i in range(2))
    Path("prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    lines = examples()
    assert {line.split()[1] for line in lines} == {"doctor", "cost", "bench"}
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "edge-conflayers"
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (line, done.output)
    assert Path("report/index.html").is_file() and Path("report-again/index.html").is_file()
    assert all(json.loads(Path(f"{name}.json").read_text()) for name in ("doctor", "cost", "bench"))


def test_the_tables_name_what_there_is() -> None:
    pytest.importorskip("matplotlib")
    from edge_conflayers.bench.page.figures import KINDS

    told = DOC.read_text(encoding="utf-8")
    assert all(word in told for word in ("drafted_at", "speedup_by_repeat", "attention_dropped"))
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(KINDS) == sum(
        any(
            row.startswith(f"| {name} |")
            for name in (
                *("speed by category", "where the time goes", "acceptance by position"),
                *("V(n)", "c(S)", "layers that drafts do without"),
            )
        )
        for row in rows
    )
