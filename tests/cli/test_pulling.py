"""How a pull is shown."""

from __future__ import annotations

import pytest

from edge_conflayers.cli import progress as shown
from edge_conflayers.cli import pulling
from edge_conflayers.hub.progress import PullProgress

EVENTS = (
    PullProgress("tiny", "waiting", 1, 1, 0, 10, "someone else pulls it"),
    PullProgress("tiny", "downloading", 2, 4, 5_000_000, 10_000_000),
    PullProgress("tiny", "verifying", 1, 1, 10_000_000, 10_000_000),
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "_AFTER", 0.0)
    monkeypatch.setattr(shown, "_APART", 0.0)
    monkeypatch.setenv("TERM", "xterm")


def pull(*, quiet: bool = False) -> None:
    with pulling.pull_progress(quiet=quiet) as progress:
        for event in EVENTS:
            progress(event)


def test_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "on_terminal", lambda stream: True)
    pull()
    text = capsys.readouterr().err
    assert "tiny: someone else pulls it\n" in text
    assert "tiny: downloading" in text and "5 of 10 MB" in text and "part 2 of 4" in text
    assert "tiny: verifying" in text and "10 of 10 MB" in text
    assert text.endswith("\r") and text.count("\n") == 1


def test_elsewhere_only_what_is_to_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    pull()
    assert capsys.readouterr().err == "tiny: someone else pulls it\n"


def test_quietly(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "on_terminal", lambda stream: True)
    pull(quiet=True)
    assert capsys.readouterr().err == ""
