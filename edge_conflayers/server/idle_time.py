"""Time in which nobody waits for anything: then a model may go on learning."""

from __future__ import annotations

import threading
from typing import Protocol


class Teacher(Protocol):
    """As ``IdleTeacher`` has them."""

    def go(self) -> None: ...

    def stop(self) -> None: ...


class IdleTime:
    """Lets one teacher go on while nobody waits for any model: that of the model asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._teacher: Teacher | None = None  # that goes on, or did last

    def end(self) -> None:
        """Ends it, if it has not ended: somebody waits, or one more does."""
        with self._lock:
            self._waiting += 1
            if self._waiting == 1 and self._teacher is not None:
                self._teacher.stop()

    def begin(self, teacher: Teacher | None) -> None:
        """Begins it, if nobody else waits: one has what they waited for.

        Args:
            teacher: of the model that they asked, if it has one.
        """
        with self._lock:
            self._waiting -= 1
            self._teacher = teacher or self._teacher
            if self._waiting == 0 and self._teacher is not None:
                self._teacher.go()
