"""docs/commands.md is what tools/command_help.py writes, on any terminal and in any locale."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from doc_pages import ROOT


@pytest.fixture(scope="module")
def command_help() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "command_help", ROOT / "tools" / "command_help.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale(command_help: ModuleType) -> None:
    assert command_help.PAGE.read_text(encoding="utf-8") == command_help.page(), (
        "the help of a command has changed: run `python tools/command_help.py`"
    )


def test_every_command_is_there(command_help: ModuleType) -> None:
    text = command_help.page()
    for name in ("run", "tune", "bench", "cost", "models pull"):
        assert f"## `edge-conflayers {name}`" in text
    assert "-h, --help" in text and "--temp FLOAT" in text
    assert max(map(len, text.splitlines())) < 200


def test_neither_terminal_nor_locale_matters(
    command_help: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = command_help.page()
    for name, value in (("COLUMNS", "40"), ("LANGUAGE", "de"), ("LC_ALL", "de_DE.UTF-8")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert command_help.page() == expected
