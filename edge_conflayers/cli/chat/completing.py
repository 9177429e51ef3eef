"""Completes commands, and what they are given, at the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from edge_conflayers.cli.chat.commands import COMMANDS
from edge_conflayers.cli.chat.settings import completed, setting_names
from edge_conflayers.method_names import METHOD_NAMES

_WORDS: dict[str, Iterable[str]] = {
    "method": METHOD_NAMES,
    "set": setting_names(),
    "stats": ("on", "off"),
    "system": ("none",),
}
_PATHS = ("load", "save")


class CommandCompleter(Completer):
    """Completes a line that begins with a slash."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        command, space, given = text[1:].partition(" ")
        if not space:
            yield from _beginning_with(command, COMMANDS)
        elif command in _PATHS:
            yield from self._files(given, complete_event)
        elif command == "set" and " " in given:
            name, _, value = given.partition(" ")
            yield from self._values(name, value, complete_event)
        elif command in _WORDS:
            yield from _beginning_with(given, _WORDS[command])

    def _values(self, name: str, begin: str, event: CompleteEvent) -> Iterator[Completion]:
        """What a setting may become."""
        for item in completed(name, begin):
            if item.type == "file":
                yield from self._files(begin, event)
            else:
                yield Completion(item.value, -len(begin))

    def _files(self, begin: str, event: CompleteEvent) -> Iterator[Completion]:
        yield from self._paths.get_completions(Document(begin), event)


def _beginning_with(begin: str, words: Iterable[str]) -> Iterator[Completion]:
    for word in words:
        if word.startswith(begin):
            yield Completion(word, -len(begin))
