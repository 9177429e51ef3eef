'''What a user types: lines, and blocks of several between """.'''

from __future__ import annotations

import re

_QUOTES = '"""'
_BEGINS = re.compile(r'\s*(?:/\S+\s+)?"""')  # a message, or what a command is given


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
