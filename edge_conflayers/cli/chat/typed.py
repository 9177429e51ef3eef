'''What a user types: lines, and blocks of several between """.'''

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

_QUOTES = '"""'
# A message, or what a command or its setting is given.
_BEGINS = re.compile(r'\s*(?:/\S+\s+(?:\S+\s+)?)?"""')


def is_open(text: str) -> bool:
    """Whether a text is a block whose end is still to come."""
    begin = _BEGINS.match(text)
    return begin is not None and not text[begin.end() :].rstrip().endswith(_QUOTES)


def unquoted(text: str) -> str:
    """A text without the marks of a block, and without the line ends beside them."""
    inner = text.strip()
    if not inner.startswith(_QUOTES):
        return inner
    inner = inner[len(_QUOTES) :].removesuffix(_QUOTES)
    return inner.removeprefix("\n").removesuffix("\n")


def near(name: str, names: Sequence[str]) -> str:
    """What to say of a name that there is not: the one that it is like, or else all."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]}?" if found else f"choose from {', '.join(names)}"
