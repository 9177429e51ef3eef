"""Reads what the user says: from a terminal, or line by line from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from edge_conflayers.cli.chat.typed import is_open
from edge_conflayers.cli.streams import MOST_BYTES, decode
from edge_conflayers.cli.terminal import on_terminal, redraws_lines

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import Output

PROMPT = ">>> "
_CONTINUED = "... "
_MOST_AT_HAND = 2000  # characters; not tuned


class Reader(Protocol):
    """Where the user's messages and commands come from."""

    is_terminal: bool

    def read(self) -> str | None:
        """The next one; None at the end.

        Raises:
            KeyboardInterrupt: Ctrl-C at an empty prompt.
            BadInput: not text.
        """
        ...

    def prefer(self, text: str) -> None:
        """Has a text at hand for the next message."""
        ...


def reader(before: Iterable[str]) -> Reader:
    """A reader of standard input.

    Args:
        before: messages that the arrow keys bring back.
    """
    return Terminal(before) if on_terminal(sys.stdin) else Lines()


class Lines:
    """Lines of standard input; empty ones are left out."""

    is_terminal = False

    def read(self) -> str | None:
        text = ""
        while line := sys.stdin.buffer.readline(MOST_BYTES + 1):
            text += decode(line, "a line of standard input")
            if text.strip() and not is_open(text):
                return text
        return text if text.strip() else None  # a block that does not end

    def prefer(self, text: str) -> None:
        pass


class Terminal:
    """A line editor: Enter sends, Alt-Enter begins a new line, and so does Enter within a block.

    Args:
        before: messages that the arrow keys bring back.
    """

    is_terminal = True

    def __init__(self, before: Iterable[str] = ()) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory

        from edge_conflayers.cli.chat.completing import CommandCompleter

        self._next = ""
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(list(before)),
            multiline=True,
            prompt_continuation=_CONTINUED,
            key_bindings=_key_bindings(),
            completer=CommandCompleter(),
            complete_while_typing=False,
            output=_output(),
        )

    def read(self) -> str | None:
        text, self._next = self._next, ""
        try:
            text = self._session.prompt(PROMPT, default=text)
        except EOFError:
            return None
        # Bytes that are not UTF-8 come as halves of surrogate pairs.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def prefer(self, text: str) -> None:
        """See ``Reader.prefer``; a long text is only brought back by the arrow keys."""
        self._next = text if len(text) <= _MOST_AT_HAND else ""


def _output() -> Output | None:
    """Where the line editor is drawn; None for standard output, unless that is a file, for the
    answers. A dumb terminal gets plain text."""
    from prompt_toolkit.output import create_output
    from prompt_toolkit.output.plain_text import PlainTextOutput

    stream = sys.stdout if on_terminal(sys.stdout) else sys.stderr
    if not redraws_lines():
        return PlainTextOutput(stream)
    return None if stream is sys.stdout else create_output(stdout=stream)


def _key_bindings() -> Any:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline()
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    def drop(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys
