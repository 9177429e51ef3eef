"""Finds what a user names as MODEL, and shows how far a pull is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from edge_conflayers.cli.progress import Progress
from edge_conflayers.hub.models import resolve
from edge_conflayers.hub.progress import ProgressCallback, PullProgress


def find_model(name: str, *, quiet: bool = False) -> Path:
    """The file of a model that a user names, pulled if it has to be.

    Args:
        quiet: show nothing of a pull.

    Raises:
        as ``models.resolve`` does.
    """
    with pull_progress(quiet=quiet) as progress:
        return resolve(name, progress)


@contextlib.contextmanager
def pull_progress(*, quiet: bool = False) -> Iterator[ProgressCallback]:
    """A callback that shows a pull as ``Progress`` does; its notes are shown everywhere, unless it
    is to be quiet."""
    with Progress(quiet=quiet) as progress:
        doing = ""

        def show(event: PullProgress) -> None:
            nonlocal doing
            if event.note and not quiet:
                click.echo(f"{event.name}: {event.note}", err=True)
            if doing != (what := f"{event.name}: {event.stage}"):
                doing = what
                progress.begin(doing, 0.0, "bytes")
            if event.stage == "waiting":
                return
            part = f"part {event.part} of {event.parts}" if event.parts > 1 else ""
            progress.update(event.done, more=part, total=event.total or 0.0)

        yield show
