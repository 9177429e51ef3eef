"""The examples of docs/python.md run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from installed import PACKAGE
from steps import RealModel

DOCS = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.model
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, real_model: RealModel, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").symlink_to(real_model("smollm2-135m").path.resolve())
    needed = re.search(r"from (langchain_community)", EXAMPLES[number])
    if needed and find_spec(needed[1]) is None:
        pytest.skip(f"{needed[1]} is not installed")
    env = {**os.environ, "PYTHONPATH": str(PACKAGE), "EDGE_CONFLAYERS_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXAMPLES[number]],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.strip()
