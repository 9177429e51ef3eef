"""Conversations on disk: JSON lines of messages, which ``run --messages`` reads as well.

A message is on disk before the next one begins, so that no more than one answer is lost however the
program ends. A conversation that is gone on with gets a file of its own, so that no two programs
write the same one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from edge_conflayers.chat import Message
from edge_conflayers.chat.messages import read_messages
from edge_conflayers.errors import BadInput
from edge_conflayers.machine.folders import data_folder

_SUFFIX = ".jsonl"
# Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as JSON's escape.
_TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}

_log = logging.getLogger(__name__)


def folder_of(model: Path) -> Path:
    """Where conversations with a model are kept.

    Raises:
        BadInput: there is no data folder.
    """
    name = re.sub(r"[^\w.-]+", "_", model.name.removesuffix(".gguf"))
    return data_folder() / "chats" / name


def latest(folder: Path) -> Path:
    """The conversation that was changed last.

    Raises:
        BadInput: there is none.
    """
    found = [(path.stat().st_mtime_ns, path) for path in folder.glob(f"*{_SUFFIX}")]
    if not found:
        raise BadInput(f"there is no conversation in {folder} to go on with; leave out --resume")
    return max(found)[1]


def read_transcript(path: Path) -> list[Message]:
    """The messages of a conversation. A last line that was not written to its end is left out.

    Raises:
        BadInput: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"the conversation {path} cannot be read: {error.strerror}") from None
    whole = text[: text.rfind("\n") + 1]
    return read_messages(whole, f"the conversation {path}") if whole else []


class Transcript:
    """The file of one conversation. Where it cannot be written, that is logged once, in one line,
    and the conversation goes on without.

    Args:
        folder: gets the file with the first change; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._failed = False
        self.path: Path | None = None

    def append(self, message: Message, messages: Sequence[Message]) -> None:
        """Adds a message.

        Args:
            messages: all of them, of which it is the last.
        """
        if self._failed:
            return
        with self._reported():
            if self.path is None:
                self._begin(messages)
                return
            with self.path.open("a", **_TEXT) as file:
                _write(file, [message])

    def replace(self, messages: Sequence[Message]) -> None:
        """Writes all messages anew, as a whole or not at all. An empty conversation that was never
        written gets no file."""
        if self._failed:
            return
        with self._reported():
            if self.path is None:
                if any(each["role"] != "system" for each in messages):
                    self._begin(messages)
                return
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".", suffix=".tmp")
            try:
                with open(handle, "w", **_TEXT) as file:
                    _write(file, messages)
                os.replace(name, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise

    def _begin(self, messages: Sequence[Message]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for number in range(1000):
            path = self.folder / f"{now}{f'_{number}' if number else ''}{_SUFFIX}"
            try:
                # For the user's eyes only.
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            with open(handle, "w", **_TEXT) as file:
                _write(file, messages)
            self.path = path
            return

    @contextlib.contextmanager
    def _reported(self):  # type: ignore[no-untyped-def]
        try:
            yield
        except OSError as error:
            self._failed = True
            _log.warning(
                "the conversation cannot be kept in %s: %s; /save it elsewhere",
                self.folder,
                error.strerror or error,
            )


def _write(file: TextIO, messages: Iterable[Message]) -> None:
    """Writes messages, and waits until they are on disk."""
    file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in messages)
    file.flush()
    os.fsync(file.fileno())
