"""The examples of docs/server.md, as they stand there, but for the address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Server, serving
from steps import RealModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "server.md"
FENCED = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
EXAMPLES = [(kind, text) for kind, text in FENCED if kind == "python" or text.startswith("curl")]
WRITTEN = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def server(real_model: RealModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    real_model("smollm2-135m")
    with serving(tmp_path_factory.mktemp("data"), "smollm2-135m") as found:
        yield found


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3 and all(WRITTEN in text for _, text in EXAMPLES)


@pytest.mark.model
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, server: Server) -> None:
    kind, text = EXAMPLES[number]
    program = [sys.executable, "-c"] if kind == "python" else ["bash", "-ec"]
    done = subprocess.run(
        [*program, text.replace(WRITTEN, server.url)],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert ("city" if kind == "python" else '"choices"') in done.stdout.replace("\\", "")
