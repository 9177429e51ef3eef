"""GBNF grammars, by llama.cpp's own parser."""

from __future__ import annotations

import re
from typing import Any

from edge_conflayers.engine import native
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput, one_line

# The parser is recursive: 60,000 parentheses overflow a stack of 8 MB. Not tuned.
_MOST_NESTED = 200
_MOST_RULES = 4000


class GBNF:
    """A GBNF grammar as a constraint on one text (``constraints.Constraint``).

    Raises:
        BadInput: it does not parse.
    """

    def __init__(self, model: Model, grammar: str) -> None:
        check_size(grammar)
        self.handle: Any = None
        native.log.recent.clear()
        if grammar.strip():  # llama.cpp takes an empty grammar for none
            self.handle = llama.llama_sampler_init_grammar(
                model.vocab, grammar.encode("utf-8", errors="replace"), b"root"
            )
        if not self.handle:
            why = re.sub(r" at .*", "", native.log.first_error(), flags=re.DOTALL)
            why = why.removeprefix("error parsing grammar: ") or "it has no rules"
            raise BadInput(
                f"the grammar does not parse: {one_line(why)};"
                " it must be GBNF with a rule named root"
            )

    def takes(self, token: int) -> bool:
        return False  # only the library may ask llama.cpp, which could throw

    def close(self) -> None:
        if self.handle:
            llama.llama_sampler_free(self.handle)
            self.handle = None


def check_size(grammar: str) -> None:
    """Refuses a grammar that would overflow a recursive parser's stack, or that C cuts off.

    Raises:
        BadInput: it nests too deeply, has too many rules, or holds a NUL character.
    """
    if "\0" in grammar:
        raise BadInput("the grammar does not parse: it holds a NUL character; remove it")
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', "", grammar)
    depth = deepest = 0
    for bracket in re.findall(r"[()]", bare):
        depth += 1 if bracket == "(" else -1
        deepest = max(deepest, depth)
    if deepest > _MOST_NESTED:
        raise BadInput(
            f"the grammar nests {deepest} parentheses; at most {_MOST_NESTED} can be parsed"
        )
    if (rules := bare.count("::=")) > _MOST_RULES:
        raise BadInput(f"the grammar has {rules} rules; at most {_MOST_RULES} can be parsed")
