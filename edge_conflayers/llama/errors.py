"""Errors as callers of llama-cpp-python expect them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edge_conflayers.errors import BadInput


class BadValue(BadInput, ValueError):
    """Something the caller gave is wrong."""


@contextlib.contextmanager
def as_value_errors() -> Iterator[None]:
    """Lets bad input be caught as the ``ValueError`` that llama-cpp-python raises."""
    try:
        yield
    except BadValue:
        raise
    except BadInput as error:
        raise BadValue(str(error)) from error
