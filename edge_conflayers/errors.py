"""What can go wrong, as a person should read it: one line that says what and what to do."""

from __future__ import annotations


class EdgeConflayersError(Exception):
    """A failure of the machine or of this program; the command line exits with code 1."""

    exit_code = 1


class BadInput(EdgeConflayersError):
    """Something the user gave is wrong; the command line exits with code 2."""

    exit_code = 2


def one_line(what: object) -> str:
    """An error's text, or any other, as one line of at most 300 characters."""
    text = " ".join(str(what).split())
    return text if len(text) <= 300 else text[:297] + "..."
