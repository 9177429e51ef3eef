"""``edge-conflayers doctor``: what is here, what a model needs of it, and what to do."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.cli.options import device_options, json_option, kernels_option
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.terminal import on_terminal

if TYPE_CHECKING:
    from edge_conflayers.doctor.examine import Report
    from edge_conflayers.engine.cpu_kernels import KernelChoice

_LABEL = 16  # columns of a line's label
_WIDEST = 100


@click.command()
@click.argument("model", required=False)
@json_option
@device_options
@kernels_option
def doctor(
    model: str | None,
    json_file: Path | None,
    threads: int | None,
    gpu_layers: int,
    kernels: KernelChoice | None,
) -> None:
    """Examine this machine and, if named, MODEL on it: what works, how fast a step can be and is,
    and what to do next. Exits with 1 if something is broken."""
    from edge_conflayers.doctor.examine import examine

    if json_file is not None:
        check_writable(json_file, model)
    report = examine(
        model,
        find_model,
        threads=threads,
        gpu_layers=gpu_layers,
        kernels=kernels,
        on_stage=_tell_stage,
    )
    if json_file is not None:
        write_json(json_file, report.to_json())
    click.echo("\n".join(lines(report)))
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
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"  {label}".ljust(_LABEL + 2),
        subsequent_indent=" " * (_LABEL + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _tell_stage(stage: str) -> None:
    if on_terminal(sys.stderr):
        click.echo(f"{stage} ...", err=True)
