"""Refuses numbers that are out of range, with one line that names the option and its range."""

from __future__ import annotations

from edge_conflayers.errors import BadInput

MOST_INT32 = 2**31 - 1


def check_number(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    whole: bool = False,
    or_zero: bool = False,
) -> None:
    """Refuses a number that is not from ``low`` to ``high``; NaN never is.

    Args:
        name: the option's, for the message.
        whole: it must be an int.
        or_zero: for the message: 0 is taken too.

    Raises:
        BadInput: it is out of range.
    """
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        kind = "a whole number " if whole else "0, or " if or_zero else ""
        raise BadInput(f"{name} is {value}; it must be {kind}from {low:.10g} to {high:.10g}")
