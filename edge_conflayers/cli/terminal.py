"""What is drawn on a terminal and is plain text elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

_FOLDED_FROM = 60  # columns, for tables of text; not tuned
_ENDLESS = 10_000  # columns


def on_terminal(stream: TextIO) -> bool:
    """Whether somebody watches."""
    return stream.isatty()


def redraws_lines() -> bool:
    """Whether a terminal can show another text where one stands, which a dumb one cannot."""
    return os.environ.get("TERM", "") not in ("dumb", "unknown")


def columns_of(stream: TextIO) -> int:
    """Columns of the terminal that a stream goes to, now: windows are resized. 80 elsewhere."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # no terminal, or no stream of the system's
        columns = 0
    return columns or shutil.get_terminal_size().columns


def console(stream: TextIO) -> Console:
    """What writes styled text on a stream: in colours on a terminal, and elsewhere if FORCE_COLOR
    or CLICOLOR_FORCE asks for them; never if NO_COLOR is set or the terminal is dumb."""
    from rich.console import Console

    is_forced = os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0")
    return Console(
        file=stream, force_terminal=True if is_forced else None, highlight=False, soft_wrap=True
    )


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> None:
    """Prints a table on standard output: drawn on a terminal, or a block of lines for each row
    where that is too narrow; elsewhere aligned plain text.

    Args:
        numbers: all columns but the first hold numbers.
    """
    right = [numbers and column > 0 for column in range(len(header))]
    if on_terminal(sys.stdout):
        _draw(header, rows, right)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _draw(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=columns_of(sys.stdout))
    table = Table()
    for name, is_right in zip(header, right, strict=True):
        table.add_column(name, justify="right" if is_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    # Text may be folded, numbers may not.
    narrowest = console.measure(table, options=console.options.update_width(_ENDLESS)).minimum
    if console.width >= (narrowest if any(right) else _FOLDED_FROM):
        console.print(table)
        return
    for row in rows:
        click.echo()
        for name, cell in zip(header, row, strict=True):
            click.echo(f"{name}: {cell}" if name else cell)
