"""What long work shows of itself: on a terminal, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gguf_models import write_tiny_model
from hypothesis import given
from hypothesis import strategies as st
from installed import PACKAGE
from terminals import at_terminal, needs_terminals, screen

from edge_conflayers.cli import progress as shown
from edge_conflayers.cli.progress import Progress, Stage, cut, width_of
from edge_conflayers.hub.models import cached_path


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return write_tiny_model(tmp_path / "tiny.gguf", "llama", n_layer=4, layer_gain=0.1)


class Shown:
    """What standard error has got so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def __str__(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Standard error, which is taken for a terminal."""
    monkeypatch.setattr(shown, "on_terminal", lambda stream: True)
    monkeypatch.setattr(shown, "columns_of", lambda stream: 100)
    monkeypatch.setenv("TERM", "xterm")
    return Shown(capsys)


@pytest.mark.parametrize(
    ("stage", "spent", "columns", "line"),
    [
        (Stage("loading a.gguf"), 0, 80, "loading a.gguf"),
        (Stage("prompts", 4, done=1), 0, 80, "prompts  [#####---------------]  25%  1 of 4"),
        (Stage("prompts", 4, done=1), 0, 40, "prompts  25%  1 of 4"),
        (Stage("reading", 4000, "tokens", 512), 0, 40, "reading  13%  512 of 4000 tokens"),
        (Stage("pull", 0.0, "bytes", 5_000_000), 0, 40, "pull  5 MB"),
        (
            Stage("teaching", 300, "seconds", 100, "writing"),
            100,
            40,
            "teaching  33%  03:20 left  writing",
        ),
        (Stage("training", 1.0, "share", 0.5), 7200, 40, "training  50%  2:00:00 left"),
        # As much as is left was done in ten seconds.
        (
            Stage("pull", 9e6, "bytes", 6e6, first=3e6),
            10,
            40,
            "pull  67%  6 of 9 MB  00:10 left",
        ),
    ],
)
def test_a_stage_in_a_line(stage: Stage, spent: float, columns: int, line: str) -> None:
    stage.begun = time.monotonic() - spent
    assert stage.line(columns) == line


@given(st.text(), st.integers(0, 40))
def test_a_line_fits(text: str, columns: int) -> None:
    found = cut(text, columns)
    assert width_of(found) <= columns and found.isprintable()
    whole = cut(text)
    assert whole.startswith(found)
    assert found == whole or width_of(whole) > columns


def test_what_is_wide_and_what_does_not_print() -> None:
    assert cut("a\x1b[2Jb\n") == "a?[2Jb?"
    assert cut("\u6f22\u5b57", 3) == "\u6f22" and width_of("e\u0301") == 1


def test_only_what_takes_longer_is_shown(stderr: Shown) -> None:
    with Progress("loading"):
        pass
    assert str(stderr) == ""
    with Progress() as progress:
        progress.begin("loading")
        progress.begin("reading", 10, at_once=True)
        progress.update(5)  # too soon after the last
        assert progress.is_watched
    assert str(stderr).count("reading") == 1 and str(stderr).endswith(" \r")


def test_a_stage_that_goes_on(stderr: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "_AFTER", 0.01)
    with Progress("loading"):
        end = time.monotonic() + 30
        while "loading" not in str(stderr) and time.monotonic() < end:
            time.sleep(0.01)
    assert str(stderr) == f"\rloading\r{'':7}\r"
    assert not any(isinstance(each, threading.Timer) for each in threading.enumerate())


def test_a_dumb_terminal_gets_lines(stderr: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Progress() as progress:
        progress.begin("loading", at_once=True)
        progress.update(1)
        progress.begin("reading", 10, at_once=True)
    assert str(stderr) == "loading\nreading\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_nothing_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    if quiet:
        monkeypatch.setattr(shown, "on_terminal", lambda stream: True)
    with Progress("loading", quiet=quiet) as progress:
        progress.begin("reading", 10, at_once=True)
        progress.update(5)
        progress.note("half of it")
    assert capsys.readouterr().err == ""


COMMANDS = {
    "run": (("run", "{model}", "-p", "the the", "-n", "4"), ("loading tiny", "reading the prompt")),
    "cost": (("cost", "{model}", "--repeat", "1"), ("measuring steps",)),
    "bench": (
        ("bench", "{model}", "--prompts", "{prompts}", "-n", "4", "--methods", "plain"),
        ("loading tiny", "warming up", "prompts  [", "1/1: plain"),
    ),
    "tune": (
        ("tune", "{model}", "--prompts", "{prompts}", "--budget", "1", "-n", "32"),
        ("measuring what steps cost here", "searching"),
    ),
    "doctor": (("doctor", "{model}"), ("reading memory", "measuring steps")),
    "export": (("export", "{model}", "{out}"), ("reading the model", "writing weights")),
}


def arguments(name: str, model: Path, folder: Path) -> list[str]:
    if name == "export":
        pytest.importorskip("onnx")
    (folder / "prompts").write_text("Name three fruits.\n")
    given, _ = COMMANDS[name]
    places = {"model": model, "prompts": folder / "prompts", "out": folder / "out"}
    threads = () if name == "export" else ("-t", "1")
    return [*(each.format(**places) for each in given), *threads]


@needs_terminals
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_at_a_terminal(tiny: Path, tmp_path: Path, name: str) -> None:
    done = at_terminal(*arguments(name, tiny, tmp_path))
    assert done.code == 0, done.shown
    for stage in COMMANDS[name][1]:
        assert stage in done.shown
    left = "\n".join(screen(done.shown))
    assert "loading" not in left and "measuring" not in left
    assert not any(stage in done.stdout for stage in ("loading", "measuring"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_a_pipe_and_quietly(tiny: Path, tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "edge_conflayers", *arguments(name, tiny, tmp_path)]
    for quiet in ([], ["--quiet"]):
        out = tmp_path / "out"
        if quiet and out.exists():
            out.rename(tmp_path / "before")
        done = subprocess.run([*command, *quiet], cwd=PACKAGE, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
        lines = done.stderr.splitlines()
        assert not quiet or lines == []
        assert all(line.startswith(("note: ", "auto: ")) for line in lines), lines


@needs_terminals
def test_quietly_at_a_terminal(tiny: Path) -> None:
    done = at_terminal("run", tiny, "-p", "the", "-n", 4, "-t", 1, "-q")
    assert (done.code, done.shown) == (0, "") and done.stdout.strip()


@needs_terminals
@pytest.mark.parametrize("columns", [20, 1, 0])
def test_a_narrow_terminal(tiny: Path, columns: int) -> None:
    done = at_terminal("cost", tiny, "--repeat", 1, "-t", 1, columns=columns)
    assert done.code == 0
    widest = max(len(each) for line in done.shown.split("\n") for each in line.split("\r"))
    assert widest < (columns or 80)


@needs_terminals
@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"TERM": "dumb", "FORCE_COLOR": "1"}, {"NO_COLOR": "1"}],
    ids=str,
)
def test_terminals_without_colours(tiny: Path, environment: dict[str, str]) -> None:
    given = ("run", tiny, "-p", "the", "-n", 4, "-t", 1, "--show-draft", "--method", "plain")
    done = at_terminal(*given, environment=environment, output_too=True)
    assert done.code == 0
    if "NO_COLOR" in environment:
        assert "\x1b[3" not in done.shown and "\x1b[9" not in done.shown
    else:
        assert "\x1b" not in done.shown and "\r" not in done.shown.replace("\r\n", "")
        assert "loading tiny.gguf\r\n" in done.shown


@needs_terminals
def test_messages_take_the_line_away_first(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")  # so that a warning comes while it works
    done = at_terminal("run", tiny, "-p", "the", "-n", 4, "-t", 1)
    assert done.code == 0
    assert all("loading" not in line and "reading" not in line for line in screen(done.shown))
    assert any("data" in line for line in screen(done.shown))


@needs_terminals
@pytest.mark.model
def test_a_real_model_reads_a_long_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if cached_path("smollm2-135m") is None:
        pytest.skip("smollm2-135m is not pulled")
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path))
    (tmp_path / "prompt").write_text("word " * 1500)
    done = at_terminal("run", "smollm2-135m", "-f", tmp_path / "prompt", "-n", 4)
    assert done.code == 0 and "measuring what steps cost here" in done.shown
    assert " of 15" in done.shown and "512 of" in done.shown
    assert len(screen(done.shown)) == 1  # the statistics


def test_a_window_that_is_resized(stderr: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "_AFTER", 0.0)
    monkeypatch.setattr(shown, "_APART", 0.0)
    sizes = iter((100, 30, 10))
    monkeypatch.setattr(shown, "columns_of", lambda stream: next(sizes))
    with Progress() as progress:
        progress.begin("reading the prompt", 10, at_once=True)
        progress.update(4)
        progress.update(8)
    first, second, third = (each for each in str(stderr).split("\r") if each.strip())
    assert len(first) > 30 and 10 < len(second) < 30 and third == "reading t"
