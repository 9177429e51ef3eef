"""Whose turn it is: a model writes one text at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Turns:
    """Lets the texts of one thread be written, while those of other threads wait.

    A thread that begins a text before its last one has ended waits for nothing: nobody else could
    end that one. A text may end in another thread than it began in, as streams do that are read by
    asynchronous programs.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread = 0
        self._texts = 0

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """A turn of this thread."""
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._texts == 0 or self._thread == thread)
            self._thread = thread
            self._texts += 1
        try:
            yield
        finally:
            with self._changed:
                self._texts -= 1
                self._changed.notify_all()
