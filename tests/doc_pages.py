"""The pages for people: README, docs and what else lies at the top, with the examples in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = tuple(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    + sorted(DOCS.glob("*.md"))
)

_FENCE = re.compile(r"^ *(`{3,}|~{3,})(\w*) *$")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "(", ")"})
_SHELLS = ("", "sh", "bash", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page, line: where it begins.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Example:
    """A command of an example.

    Attributes:
        where: the page, and the line of its block.
        words: as a shell would give them.
        prose: whether it stands in a sentence, where a command may be named without arguments.
    """

    where: str
    words: tuple[str, ...]
    prose: bool = False


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, their indentation taken off."""
    found, begin, lines = [], 0, page.read_text(encoding="utf-8").splitlines()
    mark, language = "", ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence and not mark:
            mark, language, begin = fence[1], fence[2], number
        elif fence and fence[1] == mark and not fence[2]:
            inside = lines[begin : number - 1]
            margin = min((len(x) - len(x.lstrip()) for x in inside if x.strip()), default=0)
            found.append(Block(page, begin, language, "\n".join(x[margin:] for x in inside)))
            mark = ""
    assert not mark, f"{page}:{begin}: a block that does not end"
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    kept, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def spans(page: Path) -> list[str]:
    """What stands between backticks in the prose, on one line each."""
    return [" ".join(span.split()) for span in _SPAN.findall(prose(page))]


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


def shell_examples(page: Path, *programs: str) -> Iterator[Example]:
    """The commands of these programs in shell blocks, and in the prose between backticks."""
    for block in blocks(page):
        if block.language in _SHELLS:
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from _commands(block.where, line, programs)
    for span in spans(page):
        if span.split()[:1] and span.split()[0] in programs and len(span.split()) > 1:
            for example in _commands(str(page.relative_to(ROOT)), span, programs):
                yield replace(example, prose=True)


def _commands(where: str, line: str, programs: tuple[str, ...]) -> Iterator[Example]:
    if not any(re.search(rf"(^|[|;&(=] *|\s){re.escape(each)} ", line) for each in programs):
        return
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:  # a drawing, or prose in a block
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in _OPERATORS:
            command.append(word)
            continue
        while command and re.match(r"^\w+=", command[0]):
            del command[0]
        if command and command[0] in programs:
            yield Example(where, tuple(command))
        command = ["(redirected)"] if word in (">", ">>", "<") else []
