"""``edge-conflayers export``: writes a model for ONNX runtimes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from edge_conflayers.cli.options import model_argument
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.terminal import on_terminal

if TYPE_CHECKING:
    from edge_conflayers.onnx.export import ExportProgress, Target
    from edge_conflayers.onnx.weights import Precision

_DOING = {"reading": "reading the model", "writing": "writing weights"}


@click.command()
@model_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=click.Choice(["ort", "standard"]),
    default="ort",
    show_default=True,
    help="ONNX Runtime's own operators, which are fastest there, or standard ones alone (opset 24)"
    " for other runtimes.",
)
@click.option(
    "--precision",
    type=click.Choice(["keep", "fp32", "fp16"]),
    default="keep",
    show_default=True,
    help="Weights as they are in the file, or all in one format. fp16 makes activations fp16, too:"
    " for GPUs; CPUs are slower with it.",
)
def export(model: str, folder: Path, target: Target, precision: Precision) -> None:
    """Write MODEL into the new folder DIR for ONNX Runtime, ONNX Runtime GenAI and transformers.js.

    Models of the architectures llama, qwen2, qwen3 and gemma3. Ctrl-C leaves nothing.
    """
    from edge_conflayers.onnx.extra import check_extra

    check_extra()
    from edge_conflayers.onnx.export import export as write
    from edge_conflayers.onnx.new_folder import check_new

    check_new(folder)
    path = find_model(model)
    with _progress() as show:
        write(path, folder, target=target, precision=precision, on_progress=show)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    click.echo(f"{folder}  {size / 1e6:.0f} MB")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[ExportProgress], None]]:
    """A callback that shows an export on standard error: a bar for each stage on a terminal, else a
    line."""
    if not on_terminal(sys.stderr):
        told: set[str] = set()

        def line(event: ExportProgress) -> None:
            if event.stage not in told:
                told.add(event.stage)
                click.echo(f"{_DOING[event.stage]}: {event.total / 1e6:.0f} MB", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        stages: dict[str, TaskID] = {}

        def bar(event: ExportProgress) -> None:
            if event.stage not in stages:
                stages[event.stage] = bars.add_task(_DOING[event.stage], total=event.total)
            bars.update(stages[event.stage], completed=event.done)

        yield bar
