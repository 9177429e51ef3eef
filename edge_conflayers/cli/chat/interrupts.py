"""Ctrl-C while an answer is written ends it between two tokens."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C has come.

    Attributes:
        is_writing: set once a token is written. Before, and where it comes once more because a step
            takes long, Ctrl-C raises KeyboardInterrupt, which leaves the cache in an unknown state.
        came: whether to end.
    """

    def __init__(self) -> None:
        self.is_writing = False
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.came or not self.is_writing:
            raise KeyboardInterrupt
        self.came = True


@contextmanager
def noted() -> Iterator[Interrupt]:
    """Notes Ctrl-C as long as this is entered, where Python handles it at all."""
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
