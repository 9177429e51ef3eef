"""What is drawn on a terminal and is plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

import click
from rich.console import Console
from rich.table import Table


def on_terminal(stream: TextIO) -> bool:
    """Whether somebody watches."""
    return stream.isatty()


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> None:
    """Prints a table on standard output: drawn on a terminal, else aligned plain text.

    Args:
        numbers: all columns but the first hold numbers.
    """
    right = [numbers and column > 0 for column in range(len(header))]
    if on_terminal(sys.stdout):
        table = Table()
        for name, is_right in zip(header, right, strict=True):
            table.add_column(name, justify="right" if is_right else "left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        click.echo("  ".join(cells).rstrip())
