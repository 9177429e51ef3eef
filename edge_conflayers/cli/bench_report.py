"""What ``bench`` shows and writes of what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.terminal import print_table
from edge_conflayers.errors import BadInput, EdgeConflayersError

if TYPE_CHECKING:
    from edge_conflayers.engine.language_model import LanguageModel


def show_report(report: Mapping[str, Any]) -> None:
    """Prints a report's tables."""
    from edge_conflayers.bench import tables

    print_table(tables.HEADER, tables.table_rows(report))
    if report["categories"]:
        click.echo()
        print_table(tables.category_header(report), tables.category_rows(report))


def page_of(
    earlier: Path, folder: Path | None, model: str | None, prompts: Path | None, *, quiet: bool
) -> None:
    """Makes the page of an earlier run.

    Raises:
        BadInput: there is no folder for it, something is named to be run, or the file is no report.
    """
    if folder is None:
        raise BadInput("--from-json makes a page; give a folder for it with --report")
    if model is not None or prompts is not None:
        raise BadInput("--from-json runs nothing; leave out MODEL and --prompts")
    from edge_conflayers.bench.page.load import load_report

    write_page_of(load_report(earlier), folder, quiet=quiet)


def write_page_of(report: Mapping[str, Any], folder: Path, *, quiet: bool) -> None:
    """Writes the page of a report, and says where it is unless it is to be quiet."""
    from edge_conflayers.bench.page.write import write_page

    with Progress("drawing figures", quiet=quiet):
        page, *figures = write_page(report, folder)
    if not quiet:
        click.echo(f"report: {page} and {len(figures)} figures", err=True)


def step_costs(
    model: LanguageModel, threads: int, progress: Progress, *, quiet: bool
) -> dict[str, Any] | None:
    """What steps cost here, as ``cost`` measures it; None where that cannot be done."""
    from edge_conflayers.costs.report import ROOM, measure

    context, repeat = 128, 3
    progress.begin("measuring steps", repeat, at_once=True)
    try:
        with model.open_session(n_ctx=context + ROOM, threads=threads) as session:
            measured = measure(
                session,
                context=context,
                repeat=repeat,
                on_progress=lambda done, total: progress.update(done),
            )
    except EdgeConflayersError as error:
        if not quiet:
            click.echo(f"step costs are left out: {error}", err=True)
        return None
    return measured.to_json()
