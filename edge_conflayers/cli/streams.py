"""Standard input, output and error, the same in every locale.

Text goes out as UTF-8. Only a terminal that uses another encoding gets that one, with "?" for what
it lacks. Text that comes in, by whatever way, is UTF-8, its line ends are kept, and a byte order
mark is dropped: the same bytes are the same prompt.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from edge_conflayers.errors import BadInput, EdgeConflayersError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_BYTES = 16 << 20
"""Longest text that is read: some four million tokens, more than any context holds."""

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_ERRORS = "edge-conflayers"
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class ReaderGone(EdgeConflayersError):
    """Whoever read standard output has closed it, as ``head`` does: it has enough."""

    exit_code = 141  # 128 + SIGPIPE, as shells count


def prepare() -> None:
    """Makes the process's streams safe to use: a closed one is opened, standard output takes every
    character, and standard error never fails. Streams that were replaced, as tests do, stay."""
    if sys.stdin is None:
        _reserve(_STDIN, os.O_RDONLY)
        sys.stdin = io.TextIOWrapper(io.FileIO(_STDIN, closefd=False), encoding="utf-8")
    if (before := sys.stdout) is sys.__stdout__:
        if before is None:
            _reserve(_STDOUT, os.O_RDONLY)  # opened for reading, writes fail as to a closed one
        is_terminal = before is not None and before.isatty()
        sys.stdout = _Output(
            _binary(_STDOUT),
            encoding=before.encoding if before is not None and is_terminal else "utf-8",
            errors=_ERRORS,
            newline="\n",
            line_buffering=is_terminal,
        )
    if (before := sys.stderr) is sys.__stderr__:
        if before is None:
            _reserve(_STDERR, os.O_WRONLY)
        sys.stderr = _Messages(
            _binary(_STDERR),
            encoding="utf-8" if before is None else before.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )


def before_next_message(call: Callable[[], None] | None) -> None:
    """Has something called before the next text goes to standard error; None for nothing."""
    if isinstance(sys.stderr, _Messages):
        sys.stderr.before = call


def check_output() -> None:
    """Finds out before any work whether standard output is closed.

    Raises:
        EdgeConflayersError: it is.
    """
    if isinstance(sys.stdout, _Output):
        try:
            os.write(_STDOUT, b"")
        except OSError as error:
            raise _unwritable(error) from None


def read_input() -> str:
    """All of standard input.

    Raises:
        BadInput: it is a terminal or empty, or as ``decode`` raises.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise _no_prompt()
    try:
        data = _read_all(sys.stdin.buffer)
    except OSError as error:
        raise BadInput(f"standard input cannot be read: {error.strerror}") from None
    if not data:
        raise _no_prompt()
    return decode(data, "standard input")


def _read_all(file: BinaryIO) -> bytes:
    """What a file holds, as far as ``MOST_BYTES``; waited for where reads do not block."""
    data = b""
    while len(data) <= MOST_BYTES:
        part = file.read(MOST_BYTES + 1 - len(data))
        if part is None:
            select.select([file], [], [])
        elif part:
            data += part
        else:
            break
    return data


def _no_prompt() -> BadInput:
    return BadInput("there is no prompt; give one with -p, -f or on standard input")


def read_text(path: Path, what: str) -> str:
    """A file's text; a pipe or another device does as well.

    Args:
        what: the file is, for messages.

    Raises:
        BadInput: it cannot be read, or as ``decode`` raises.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"the {what} {path} cannot be read: {why}") from None
    return decode(data, f"the {what} {path}")


def decode(data: bytes, what: str) -> str:
    """The text that bytes are in UTF-8, without a byte order mark.

    Args:
        what: they come from, for messages.

    Raises:
        BadInput: not UTF-8, not text, or more than ``MOST_BYTES``.
    """
    if len(data) > MOST_BYTES:
        raise BadInput(f"{what} holds more than {MOST_BYTES >> 20} MiB; give a shorter text")
    for mark, encoding in _OTHER_MARKS:
        if data.startswith(mark):
            raise BadInput(f"{what} is {encoding} text; convert it to UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{what} is not UTF-8 text (line {line}); convert it") from None
    if "\0" in text:
        raise BadInput(f"{what} holds NUL bytes and so is not UTF-8 text; convert it")
    return text


class ArgumentText(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A text given as an argument, in UTF-8 whatever the locale."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            # In the C locale Python may have read UTF-8 byte by byte.
            text = os.fsencode(value).decode("utf-8") if _has_surrogates(value) else value
        except UnicodeError:
            self.fail("not UTF-8 text; convert it", param, ctx)
        return text.removeprefix("\ufeff")


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


class _Output(io.TextIOWrapper):
    """Standard output. Where a write fails, what follows goes nowhere, so that Python does not fail
    once more when it exits."""

    def write(self, text: str, /) -> int:
        with _reported():
            return super().write(text)

    def flush(self) -> None:
        with _reported():
            super().flush()


class _Messages(io.TextIOWrapper):
    """Standard error: where messages cannot be written, they are lost and the text is not.

    Attributes:
        before: called before the next text, once.
    """

    before: Callable[[], None] | None = None

    def write(self, text: str, /) -> int:
        before, self.before = self.before, None
        if before is not None:
            before()
        with _lost_messages():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with _lost_messages():
            super().flush()


@contextlib.contextmanager
def _reported():  # type: ignore[no-untyped-def]
    try:
        yield
    except OSError as error:
        _to_nowhere(_STDOUT)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from None
        raise _unwritable(error) from None


@contextlib.contextmanager
def _lost_messages():  # type: ignore[no-untyped-def]
    try:
        yield
    except OSError:
        _to_nowhere(_STDERR)


def _unwritable(error: OSError) -> EdgeConflayersError:
    why = "it is closed" if error.errno == errno.EBADF else error.strerror
    return EdgeConflayersError(f"standard output cannot be written: {why}")


def _binary(fd: int) -> io.BufferedWriter:
    return io.BufferedWriter(_Waiting(fd, "w", closefd=False))


class _Waiting(io.FileIO):
    """Waits for room in a pipe that does not block, as programs that share it may have set it."""

    def write(self, data: Buffer, /) -> int:
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


def _reserve(fd: int, flags: int) -> None:
    """Opens the null device as a descriptor that is closed, so that no other file becomes it."""
    opened = os.open(os.devnull, flags)
    if opened != fd:
        os.dup2(opened, fd)
        os.close(opened)
    os.set_inheritable(fd, True)


def _to_nowhere(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def _bytes_or_question_marks(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of a file name that was not UTF-8 are written as they were."""
    assert isinstance(error, UnicodeEncodeError)
    bad = error.object[error.start : error.end]
    return b"".join(map(_byte_or_question_mark, bad)), error.end


def _byte_or_question_mark(character: str) -> bytes:
    stands_for_a_byte = "\udc80" <= character <= "\udcff"
    return character.encode("utf-8", "surrogateescape") if stands_for_a_byte else b"?"


codecs.register_error(_ERRORS, _bytes_or_question_marks)
