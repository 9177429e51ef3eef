"""Options of ``run`` that say how tokens are drawn, on the real command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from steps import TinyPath

from edge_conflayers.cli import main

FREE = ("--top-k", "0", "--top-p", "1", "--min-p", "0")


@pytest.fixture
def model(tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    return tiny_path("llama", n_layer=2)


def run(model: Path, *arguments: object) -> Result:
    given = ("run", model, "--raw", "-p", "the", "-t", 1, "-n", 60, *arguments)
    return CliRunner().invoke(main, [str(argument) for argument in given])


@pytest.mark.parametrize("seed", [-1, 4294967295])
def test_a_random_seed_is_shown_and_used(model: Path, tmp_path: Path, seed: int) -> None:
    stats = tmp_path / "stats.json"
    first = run(model, "--temp", 1.5, *FREE, "--seed", seed, "--stats-json", stats)
    shown = re.search(r"seed (\d+)", first.stderr)
    assert first.exit_code == 0 and shown is not None
    assert json.loads(stats.read_text())["seed"] == int(shown[1])
    again = run(model, "--temp", 1.5, *FREE, "--seed", shown[1], "--method", "plain")
    assert again.stdout == first.stdout and "seed" not in again.stderr
    other = run(model, "--temp", 1.5, *FREE, "--seed", seed)
    assert other.stdout != first.stdout


@pytest.mark.parametrize("method", ["auto", "plain"])
def test_a_schema(model: Path, method: str) -> None:
    schema = {"type": "integer", "minimum": 1, "maximum": 5}
    for seed in range(3):
        done = run(
            model,
            *("--json-schema", json.dumps(schema), "--temp", 1, *FREE, "--seed", seed),
            *("--method", method),
        )
        assert done.exit_code == 0 and json.loads(done.stdout) in range(1, 6)


@pytest.mark.parametrize(
    "grammar", ['root ::= "a"{3} "."', '%llguidance {}\nstart: "a"~3 "."'], ids=["gbnf", "lark"]
)
def test_a_grammar(model: Path, tmp_path: Path, grammar: str) -> None:
    (tmp_path / "grammar").write_text(grammar)
    done = run(model, "--grammar-file", tmp_path / "grammar")
    assert done.exit_code == 0 and done.stdout == "aaa.\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--json-schema", '{"not": {}}'), "the schema uses 'not', which cannot be enforced"),
        (("--repeat-penalty", "nan"), "repeat-penalty is nan; it must be from 0.01 to 100"),
        (("--temp", "inf"), "temperature (--temp) is inf"),
        (("--top-k", str(10**30)), "top-k is 1000"),
        (("--seed", str(2**32)), "seed is 4294967296; it must be a whole number from -1 to"),
        (("-t", "100000"), "threads (-t) is 100000; it must be a whole number from 1 to"),
        (("-c", str(2**40)), "ctx-size (-c) is 1099511627776; it must be a whole number from 0"),
        (("-ngl", "-5"), "gpu-layers (-ngl) is -5; it must be a whole number from -1 to"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_refused(model: Path, arguments: tuple[str, ...], line: str) -> None:
    done = run(model, *arguments)
    assert done.exit_code == 2 and not done.stdout
    assert line in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("tune", "--budget", "nan"), "budget is nan; it must be from 1 to 604800"),
        (("tune", "--budget", "inf"), "budget is inf; it must be from 1 to 604800"),
        (("tune", "-t", "100000"), "threads (-t) is 100000"),
        (("cost", "-t", "100000"), "threads (-t) is 100000"),
        (("cost", "--context", str(2**40)), "context is 1099511627776; it must be from 1"),
        (("bench", "-t", "100000"), "threads (-t) is 100000"),
        (("bench", "--repeat-penalty", "nan"), "repeat-penalty is nan"),
        (("bench", "--seed", str(2**33)), "seed is 8589934592"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, tuple) else "",
)
def test_what_other_commands_refuse(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the first\nthe second\n")
    command, *options = arguments
    if command == "bench":
        options += ["--prompts", str(prompts), "--methods", "plain", "--raw"]
    done = CliRunner().invoke(main, [command, str(model), *options])
    assert done.exit_code == 2 and line in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
