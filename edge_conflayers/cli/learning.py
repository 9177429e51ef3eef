"""``--learn`` of the commands that wait for people."""

from __future__ import annotations

import click

from edge_conflayers.errors import BadInput

learn_option = click.option(
    "--learn",
    is_flag=True,
    help="While nobody waits for an answer, teach the next-state head by what was said. Its weights"
    " are kept, texts are not.",
)


def check_kept(*, fresh: bool) -> None:
    """Refuses to learn what would not be kept.

    Raises:
        BadInput: it would not.
    """
    if fresh:
        raise BadInput("--learn keeps what is learned and --fresh does not; choose one")


def check_learning(method: str, *, fresh: bool) -> None:
    """Refuses to learn what would not be kept or used.

    Raises:
        BadInput: it would not.
    """
    from edge_conflayers.methods import METHODS, uses_head

    check_kept(fresh=fresh)
    if not uses_head((method,)):
        others = " or ".join(name for name in METHODS if uses_head((name,)))
        raise BadInput(f"the method {method} asks no next-state head; choose {others} to --learn")
