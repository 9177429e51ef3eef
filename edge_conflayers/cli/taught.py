"""Says how good a next-state head is that was just taught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edge_conflayers.tune.teaching import Taught


def show_taught(taught: Taught, *, err: bool = False) -> None:
    """Prints one line.

    Args:
        err: to standard error.
    """
    first, among = taught.foreseen
    click.echo(
        f"next-state head: of the tokens after the next one it foresees {first:.0%} in one guess"
        f" and {among:.0%} in four (texts of {taught.tokens} tokens)",
        err=err,
    )
