"""Every command in the pages is one that there is, with options that it has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from doc_pages import PAGES, ROOT, Example, shell_examples
from steps import RealModel

from edge_conflayers.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OURS = "edge-conflayers"


def examples(*programs: str) -> list[Example]:
    return [example for page in PAGES for example in shell_examples(page, *programs)]


def parse(words: tuple[str, ...], *, prose: bool = False) -> None:
    """Parses a command line of ours as click does, and runs nothing.

    Args:
        prose: whether commands may be named without their arguments.

    Raises:
        click.UsageError: it is none.
    """
    if words[1:] == ("COMMAND", "--help"):
        return
    arguments = list(words[1:])
    context: click.Context | None = None
    command: click.Command = main
    while arguments or not prose:
        try:
            context = command.make_context(words[0], arguments, parent=context)
        except click.exceptions.Exit:  # --version and the like
            return
        if not isinstance(command, click.Group):
            return
        held = vars(context)  # click 8.2 has renamed what holds a group's command
        rest = [*held.get("_protected_args", held.get("protected_args", ())), *context.args]
        _, found, arguments = command.resolve_command(context, rest)
        assert found is not None
        command = found


@pytest.mark.parametrize("example", examples(OURS), ids=lambda e: f"{e.where} {' '.join(e.words)}")
def test_a_command_parses(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        parse(example.words, prose=example.prose)
    except click.UsageError as error:
        pytest.fail(f"{example.where}: {' '.join(example.words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "wrong",
    [
        "run",
        "run model.gguf --no-such-option",
        "run model.gguf --temp hot",
        "run model.gguf --method none-such",
        "nothing model.gguf",
        "models nothing",
        "run model.gguf another.gguf",
        "tune model.gguf --budget 0",
    ],
)
def test_a_wrong_one_does_not(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        parse((OURS, *wrong.split()))


def test_prose_may_name_a_command_that_there_is() -> None:
    parse((OURS, "models", "pull"), prose=True)
    parse((OURS, "cost"), prose=True)
    for wrong in ("nothing", "models nothing", "run --temp 1", "cost model.gguf --nothing"):
        with pytest.raises(click.UsageError):
            parse((OURS, *wrong.split()), prose=True)


def test_there_are_examples() -> None:
    found = examples(OURS)
    assert len(found) > 40
    assert {each.words[1] for each in found} >= {"run", "tune", "bench", "cost", "models", "export"}


def test_what_make_is_asked_for_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = {
        word: example.where
        for example in examples("make")
        for word in example.words[1:]
        if re.fullmatch(r"[\w-]+", word)
    }
    assert asked
    for target, where in asked.items():
        assert re.search(rf"^{re.escape(target)}:", makefile, re.M), f"{where}: make {target}"


def test_scripts_and_tests_that_are_named_are_there() -> None:
    named = [
        (example.where, word)
        for example in examples("python", "pytest", ".venv/bin/pytest")
        for word in example.words[1:]
        if word.endswith(".py") or word.startswith("tests/")
    ]
    assert named
    for where, path in named:
        assert (ROOT / path).exists(), f"{where}: {path}"


def test_extras_that_are_installed_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {
        extra: example.where
        for example in examples("pip")
        for word in example.words
        for extra in re.findall(r"^edge-conflayers\[(.+)\]$", word)
    }
    assert "onnx" in asked
    for extra, where in asked.items():
        assert set(extra.split(",")) <= set(project["optional-dependencies"]), f"{where}: {extra}"


def is_cheap(words: tuple[str, ...]) -> bool:
    """Whether an example needs no file of the user's, and at most the smallest model."""
    first = words[1:3]
    return first in (("--version",), ("models", "list")) or (
        first == ("run", "smollm2-135m") and "-n" in words and "-p" in words
    )


@pytest.mark.model
def test_cheap_examples_run(
    real_model: RealModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = sorted({example.words for example in examples(OURS) if is_cheap(example.words)})
    assert len(cheap) >= 5
    real_model("smollm2-135m")
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path))
    texts: dict[str, set[str]] = {}
    for words in cheap:
        done = CliRunner().invoke(main, list(words[1:]))
        assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"
        assert done.stdout.strip()
        if "--temp" not in words and "-p" in words and "--show-draft" not in words:
            texts.setdefault(words[words.index("-p") + 1], set()).add(done.stdout)
    assert all(len(same) == 1 for same in texts.values())  # whatever the method
