"""What goes wrong, as one line on standard error and an exit code."""

from __future__ import annotations

import sys
import traceback

import click

from edge_conflayers.cli.streams import ReaderGone
from edge_conflayers.errors import EdgeConflayersError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells count."""


def report(error: BaseException, *, debug: bool) -> int:
    """Says what went wrong, and returns the exit code.

    Args:
        debug: show the traceback as well.
    """
    if isinstance(error, ReaderGone):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    if debug:
        traceback.print_exception(error)
    if isinstance(error, EdgeConflayersError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, MemoryError):
        _say(f"out of memory ({error or 'no more to give'}); use a smaller model")
    elif isinstance(error, OSError):
        _say(f"{error}; `edge-conflayers --debug ...` shows where")
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _say(f"a fault of this program ({what}); `edge-conflayers --debug ...` shows where")
    return 1


def _say(message: str) -> None:
    click.echo(f"edge-conflayers: {' '.join(message.split())}", err=True)


def flushed(code: int, *, debug: bool) -> int:
    """The exit code once standard output is flushed, which may fail as well."""
    try:
        sys.stdout.flush()
    except EdgeConflayersError as error:
        return report(error, debug=debug)
    return code
