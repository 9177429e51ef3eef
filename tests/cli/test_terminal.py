"""Tables and colours, on terminals of every kind and elsewhere."""

from __future__ import annotations

import io
import re

import pytest
from terminals import at_terminal, needs_terminals, screen

from edge_conflayers.cli import terminal
from edge_conflayers.cli.terminal import columns_of, console, print_table, redraws_lines

HEADER = ("method", "tokens", "tokens/s", "x plain", "accepted", "identical")
ROWS = [
    ("plain", "1000", "12.3", "1.00", "-", "yes"),
    ("[auto]", "1000", "24.6", "2.00", "81%", "NO"),
]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, numbers: bool
) -> str:
    monkeypatch.setattr(terminal, "on_terminal", lambda stream: True)
    monkeypatch.setattr(terminal, "columns_of", lambda stream: columns)
    print_table(HEADER, ROWS, numbers=numbers)
    return capsys.readouterr().out


@pytest.mark.parametrize("numbers", [True, False])
def test_a_wide_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], numbers: bool
) -> None:
    text = drawn(monkeypatch, capsys, 100, numbers)
    assert "┃" in text and all(cell in text for row in (HEADER, *ROWS) for cell in row)


@pytest.mark.parametrize("columns", [1, 20, 40])
def test_a_narrow_terminal_loses_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    lines = drawn(monkeypatch, capsys, columns, True).splitlines()
    blocks = [[f"{name}: {cell}" for name, cell in zip(HEADER, row, strict=True)] for row in ROWS]
    assert lines == ["", *blocks[0], "", *blocks[1]]


def test_text_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda stream: True)
    monkeypatch.setattr(terminal, "columns_of", lambda stream: 60)
    print_table(("name", "from"), [("a", "https://example.org/" + "x" * 80)], numbers=False)
    text = capsys.readouterr().out
    assert "┃" in text and text.count("x") == 81 and "…" not in text
    assert all(len(line) <= 60 for line in text.splitlines())


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"CLICOLOR_FORCE": "0"}, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
    ],
    ids=str,
)
def test_colours_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    console(stream).print("text", style="red")
    assert ("\x1b[31m" in stream.getvalue()) == coloured


def test_what_is_known_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "33")
    assert columns_of(io.StringIO()) == 33
    for term, redraws in (("dumb", False), ("unknown", False), ("xterm", True), ("", True)):
        monkeypatch.setenv("TERM", term)
        assert redraws_lines() == redraws


@needs_terminals
@pytest.mark.parametrize("columns", [100, 20])
@pytest.mark.parametrize("environment", [ASCII, {"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_a_table_on_real_terminals(columns: int, environment: dict[str, str]) -> None:
    done = at_terminal("models", "list", columns=columns, environment=environment, output_too=True)
    assert done.code == 0 and "Traceback" not in done.shown
    text = "".join(screen(done.shown))
    assert "smollm2-135m" in text and "apache-2.0" in text.lower()
    if environment is ASCII:
        assert done.shown.isascii()
    assert not re.search(r"\x1b\[[\d;]*3\dm", done.shown)
    if environment.get("TERM") == "dumb":
        assert "\x1b" not in done.shown
