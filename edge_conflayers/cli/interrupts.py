"""Ctrl-C while llama.cpp calls back into Python, to log: nothing can be raised through C."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_A_MOMENT = 0.01  # seconds, in which a callback has returned


@contextmanager
def delivered() -> Iterator[None]:
    """An interrupt that such a callback swallows comes once more a moment later, in place of the
    traceback that Python would show."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = threading.Timer(_A_MOMENT, _interrupt)
            again.daemon = True
            again.start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt() -> None:
    """Sends SIGINT to the main thread, so that what it waits in ends at once."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:  # Windows: after the wait
        _thread.interrupt_main()
