"""How a pull is shown."""

from __future__ import annotations

import pytest
from rich.console import Console

from edge_conflayers.cli import pulling
from edge_conflayers.hub.progress import PullProgress


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=100, record=True)
    monkeypatch.setattr(pulling, "Console", lambda stderr: terminal)
    monkeypatch.setattr(pulling, "on_terminal", lambda stream: True)
    with pulling.pull_progress() as progress:
        progress(PullProgress("tiny", "waiting", 1, 1, 0, 10, "someone else pulls it"))
        progress(PullProgress("tiny", "downloading", 2, 4, 5_000_000, 10_000_000))
        progress(PullProgress("tiny", "verifying", 1, 1, 10_000_000, 10_000_000))
    shown = terminal.export_text()
    assert "tiny: someone else pulls it" in shown
    assert "tiny: downloading, part 2 of 4" in shown and "5.0/10.0 MB" in shown
    assert "tiny: verifying" in shown and "10.0/10.0 MB" in shown
