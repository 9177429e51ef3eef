"""``edge-conflayers doctor``: what is here, what a model needs of it, and what to do."""

from __future__ import annotations

import shutil
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.completing import ModelName
from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, show_result
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import device_options, json_option, kernels_option, quiet_option
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.pulling import find_model

if TYPE_CHECKING:
    from edge_conflayers.doctor.examine import Report
    from edge_conflayers.engine.cpu_kernels import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions

_LABEL = 16  # columns of a line's label
_WIDEST = 100
_NARROW = 40  # columns of a terminal on which a label has a line of its own
_LEAST = 10  # columns


@click.command(
    cls=Command,
    short_help="Examine this machine, and a model on it.",
    examples=(
        "edge-conflayers doctor",
        "edge-conflayers doctor model.gguf --json doctor.json",
    ),
)
@click.argument("model", required=False, type=ModelName())
@model_options
@device_options
@group("Machine", kernels_option)
@group("Output", json_option, quiet_option)
def doctor(
    model: str | None,
    json_file: Path | None,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    quiet: bool,
) -> None:
    """Examine this machine and, if named, MODEL on it: what works, how fast a step can be and is,
    and what to do next. Exits with 1 if something is broken."""
    from edge_conflayers.doctor.examine import examine

    if json_file is not None:
        check_writable(json_file, model, *(each.path for each in options.lora))
    with Progress(quiet=quiet) as progress:
        report = examine(
            model,
            partial(find_model, quiet=quiet),
            threads=threads,
            gpu_layers=gpu_layers,
            kernels=kernels,
            options=options,
            on_stage=progress.begin,
        )
    show_result(json_file, report.to_json, lambda: click.echo("\n".join(lines(report))))
    if report.problems:
        sys.exit(1)


def lines(report: Report) -> list[str]:
    """The report as lines of text, as wide as the terminal, or 80 columns."""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    told = []
    for section in report.sections:
        told.append(section.name)
        for label, text in section.lines:
            told += _wrapped(label, text, width)
        for problem in section.problems:
            told += _wrapped("BROKEN", problem, width)
        told.append("")
    told.append("what to do")
    todo = [*report.problems, *report.advice] or ["nothing: all is well"]
    for number, text in enumerate(todo, start=1):
        told += _wrapped(f"{number}.", text, width)
    return told


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """A line of the report, wrapped: its label stands before the text, or above it where the
    terminal is narrow."""
    label = f"  {label}"
    above = [label] if width < _NARROW else []
    indent = " " * (4 if above else _LABEL + 2)
    return above + textwrap.wrap(
        text,
        max(width, _LEAST),
        initial_indent=indent if above else label.ljust(_LABEL + 2),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
