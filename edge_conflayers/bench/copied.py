"""How much of a text repeats its prompt, which lookups draft at no cost."""

from __future__ import annotations

from collections.abc import Sequence

_RUN = 8  # tokens: shorter ones repeat by chance, as "the end of the" does; not tuned


def copied_tokens(prompt: Sequence[int], text: Sequence[int], run: int = _RUN) -> int:
    """Tokens of a text in stretches of at least ``run`` tokens that its prompt has as well."""
    known = {tuple(prompt[i : i + run]) for i in range(len(prompt) - run + 1)}
    copied = end = 0  # end: of the last such stretch
    for begin in range(len(text) - run + 1):
        if tuple(text[begin : begin + run]) in known:
            copied += begin + run - max(begin, end)
            end = begin + run
    return copied
