"""``edge-conflayers models``: list, pull, path and remove the models of the registry."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TextIO

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
from rich.table import Table

from edge_conflayers import models as store
from edge_conflayers.download import ProgressCallback, PullProgress
from edge_conflayers.errors import BadInput
from edge_conflayers.registry import ModelInfo, lookup, registry


@click.group()
def models() -> None:
    """The models that are known by name: which there are, and those on this machine."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every field.")
def list_models(as_json: bool) -> None:
    """List the registry: name, size, licence, pulled or not."""
    infos = list(registry().values())
    if as_json:
        click.echo(json.dumps([_record(info) for info in infos], indent=2))
        return
    rows = [
        (
            info.name,
            f"{info.size / 1e6:.0f} MB",
            info.licence,
            "pulled" if store.cached_path(info.name) else "not pulled",
            f"{info.description} ({info.quantization}, {info.architecture}, {info.layers} layers)",
        )
        for info in infos
    ]
    header = ("name", "size", "licence", "here", "what")
    if _on_terminal(sys.stdout):
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--verify", is_flag=True, help="Check the SHA-256 of what is here; refetch if wrong.")
def pull(names: tuple[str, ...], verify: bool) -> None:
    """Fetch models into the cache, and print where each one is.

    An interrupted pull goes on where it stopped.
    """
    infos = [lookup(name) for name in names]
    for info in infos:
        with pull_progress() as progress:
            path = store.pull(info.name, progress, recheck=verify)
        click.echo(f"{info.name}  {path}")
        click.echo(f"{info.name}: licence {info.licence}, {info.licence_url}", err=True)


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the path of a pulled model, and nothing else."""
    file = store.cached_path(name)
    if file is None:
        raise BadInput(f"{name} is not pulled: run `edge-conflayers models pull {name}` first")
    click.echo(file)


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Delete pulled models, unfinished pulls included."""
    infos = [lookup(name) for name in names]
    for info in infos:
        removed = store.remove(info.name)
        click.echo(f"{info.name}: {'removed' if removed else 'was not pulled'}")


@contextlib.contextmanager
def pull_progress() -> Iterator[ProgressCallback]:
    """A callback that shows a pull on standard error: a bar on a terminal, else plain lines.

    Nothing is shown before its first call, so it costs nothing where the model is already there.
    """
    if not _on_terminal(sys.stderr):
        yield _PlainLines()
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: PullProgress) -> None:
        if event.note:
            self._progress.console.print(f"{event.name}: {event.note}", markup=False)
        if event.stage == "waiting":
            return
        if event.stage not in self._tasks:
            self._progress.start()
            self._tasks[event.stage] = self._progress.add_task("", total=event.total)
        self._progress.update(
            self._tasks[event.stage], completed=event.done, description=_what(event)
        )

    def close(self) -> None:
        self._progress.stop()


class _PlainLines:
    """One line when the stage or part changes, and for every further tenth of the file."""

    def __init__(self) -> None:
        self._last: tuple[str, int, int] | None = None

    def __call__(self, event: PullProgress) -> None:
        if event.note:
            click.echo(f"{event.name}: {event.note}", err=True)
        if event.stage == "waiting":
            return
        key = (event.stage, event.part, 10 * event.done // event.total)
        if key != self._last:
            self._last = key
            done, total = event.done / 1e6, event.total / 1e6
            click.echo(f"{_what(event)}: {done:.0f} of {total:.0f} MB", err=True)


def _on_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def _what(event: PullProgress) -> str:
    part = f", part {event.part} of {event.parts}" if event.parts > 1 else ""
    return f"{event.name}: {event.stage}{part if event.stage == 'downloading' else ''}"


def _record(info: ModelInfo) -> dict[str, object]:
    file = store.cached_path(info.name)
    return {
        "name": info.name,
        "description": info.description,
        "architecture": info.architecture,
        "quantization": info.quantization,
        "layers": info.layers,
        "size": info.size,
        "sha256": info.sha256,
        "licence": info.licence,
        "licence_url": info.licence_url,
        "cached": file is not None,
        "path": str(file) if file else None,
    }
