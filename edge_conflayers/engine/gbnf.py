"""GBNF grammars, by llama.cpp's own parser."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from edge_conflayers.engine import native
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.vocabulary import Vocabulary
from edge_conflayers.errors import BadInput, one_line

# The parser is recursive: 60,000 parentheses overflow a stack of 8 MB. Not tuned.
_MOST_NESTED = 200
_MOST_RULES = 4000
# llama.cpp compares each with each where a text may go on: 1 s for 10,000, 10 s for 40,000
# (2026-11, on one core).
_MOST_ALTERNATIVES = 20_000


_PARSER_ERROR = re.compile("error parsing grammar: (.*)")


@contextlib.contextmanager
def _printed_errors(printed: list[str]) -> Iterator[None]:
    """Collects what is printed to standard error meanwhile, by any thread: llama.cpp's parser
    prints its errors, with all of the grammar."""
    with contextlib.ExitStack() as stack:
        try:
            before = os.dup(2)
            stack.callback(os.close, before)
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # no room, or standard error is closed
            yield
            return
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            file.seek(0)
            printed += file.read(1 << 16).decode("utf-8", errors="replace").splitlines()


class GBNF:
    """A GBNF grammar as a constraint on one text (``constraints.Constraint``).

    Raises:
        BadInput: it does not parse.
    """

    def __init__(self, model: Vocabulary, grammar: str) -> None:
        check_size(grammar)
        self.handle: Any = None
        native.log.recent.clear()
        printed: list[str] = []
        if grammar.strip():  # llama.cpp takes an empty grammar for none
            with _printed_errors(printed):
                self.handle = llama.llama_sampler_init_grammar(
                    model.vocab, grammar.encode("utf-8", errors="replace"), b"root"
                )
        if not self.handle:
            why = next((m[1] for m in map(_PARSER_ERROR.search, printed) if m), "")
            why = re.sub(r" at .*", "", why or native.log.first_error(), flags=re.DOTALL)
            why = why or "it has no rules"
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
    """Refuses a grammar that would overflow a recursive parser's stack, keep it busy for ever, or
    that C cuts off.

    Raises:
        BadInput: it nests too deeply, has too many rules or alternatives, repeats backwards, or
            holds a NUL character.
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
    if (alternatives := bare.count("|")) > _MOST_ALTERNATIVES:
        raise BadInput(
            f"the grammar has {alternatives} alternatives; at most {_MOST_ALTERNATIVES} can be"
            " followed"
        )
    for least, most in re.findall(r"\{\s*(\d{1,18})\s*,\s*(\d{1,18})\s*\}", bare):
        if int(least) > int(most):
            raise BadInput(
                f"the grammar repeats at least {least} and at most {most} times; swap them"
            )
