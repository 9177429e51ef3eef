"""What a server allows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_conflayers.errors import BadInput
from edge_conflayers.limits import MOST_INT32, check_number

_MIB = 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True)
class ServerOptions:
    """What a server allows.

    Attributes:
        queue: texts that may wait for a slot of their model.
        max_tokens: most tokens of a text; None for what fits in the context.
        max_body: most bytes of a request's body.
        api_keys: one of them must come with each request; none for no such check.
        cors: origins whose pages may use the server; "*" for any.
        hosts: names that requests may call the server by; none for any.
        page: whether there is a page for people.
        body_seconds: in which a request's body must have come.
        grace: seconds in which texts may still end after the server was told to.

    Raises:
        BadInput: a number out of range, or an empty key.
    """

    queue: int = 32
    max_tokens: int | None = None
    max_body: int = 4 * _MIB
    api_keys: Sequence[str] = ()
    cors: Sequence[str] = ()
    hosts: Sequence[str] = ()
    page: bool = True
    body_seconds: float = 30.0
    grace: float = 3.0

    def __post_init__(self) -> None:
        check_number("queue", self.queue, 0, MOST_INT32, whole=True)
        check_number("max-body", self.max_body, 1, 2**40, whole=True)
        if not all(self.api_keys):
            raise BadInput("an API key is empty; give one that is not, or leave the option out")


def hosts_of(host: str, api_keys: Sequence[str]) -> Sequence[str]:
    """The names that a server without a key which only this machine reaches is called by; none,
    for any, of another."""
    return (
        (host, *(each for each in _LOOPBACK if each != host))
        if (host in _LOOPBACK and not api_keys)
        else ()
    )


def read_keys(path: Path) -> list[str]:
    """The keys in a file, one a line; empty lines and those that begin with # are left out.

    Raises:
        BadInput: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the file of API keys cannot be read ({error})") from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise BadInput(f"{os.fspath(path)} holds no API key; write one a line")
    return keys
