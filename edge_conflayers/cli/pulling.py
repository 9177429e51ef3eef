"""Shows how far a pull is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from edge_conflayers.cli.terminal import on_terminal
from edge_conflayers.hub.models import resolve
from edge_conflayers.hub.progress import ProgressCallback, PullProgress

# Bytes that a plain line is written for, times ten, where the size is not known.
_UNKNOWN_TOTAL = 1_000_000_000


def find_model(name: str, *, quiet: bool = False) -> Path:
    """The file of a model that a user names, pulled if it has to be.

    Args:
        quiet: show nothing of a pull.

    Raises:
        as ``models.resolve`` does.
    """
    if quiet:
        return resolve(name, lambda event: None)
    with pull_progress() as progress:
        return resolve(name, progress)


@contextlib.contextmanager
def pull_progress() -> Iterator[ProgressCallback]:
    """A callback that shows a pull on standard error: a bar on a terminal, else plain lines.

    Nothing is shown before its first call, so it costs nothing where the model is already there.
    """
    if not on_terminal(sys.stderr):
        yield _PlainLines()
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """A bar for each file and stage, on a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, event: PullProgress) -> None:
        if event.note:
            self._progress.console.print(f"{event.name}: {event.note}", markup=False)
        if event.stage == "waiting":
            return
        key = (event.name, event.stage)
        if key not in self._tasks:
            self._progress.start()
            self._tasks[key] = self._progress.add_task("", total=event.total)
        self._progress.update(
            self._tasks[key],
            completed=event.done,
            total=event.total,
            description=_what(event),
        )

    def close(self) -> None:
        self._progress.stop()


class _PlainLines:
    """Plain text: one line when the stage or part changes, and for every tenth of the file."""

    def __init__(self) -> None:
        self._last: tuple[str, str, int, int] | None = None

    def __call__(self, event: PullProgress) -> None:
        if event.note:
            click.echo(f"{event.name}: {event.note}", err=True)
        if event.stage == "waiting":
            return
        tenth = 10 * event.done // (event.total or _UNKNOWN_TOTAL)
        key = (event.name, event.stage, event.part, tenth)
        if key != self._last:
            self._last = key
            of = "" if event.total is None else f" of {event.total / 1e6:.0f}"
            click.echo(f"{_what(event)}: {event.done / 1e6:.0f}{of} MB", err=True)


def _what(event: PullProgress) -> str:
    part = f", part {event.part} of {event.parts}" if event.parts > 1 else ""
    return f"{event.name}: {event.stage}{part if event.stage == 'downloading' else ''}"
