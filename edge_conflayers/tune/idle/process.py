"""The process that teaches while nobody waits for an answer: ``python -m`` this, and the number of
the pipe to the program that it teaches for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import EdgeConflayersError, one_line
from edge_conflayers.learned import Learned
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.tune.idle.messages import Ended, Setup
from edge_conflayers.tune.idle.rounds import Heard, Rounds

_KILLED_FIRST = "1000"  # where the system runs out of memory
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main() -> None:
    """Teaches until the pipe is closed, or there is nothing to teach."""
    _bind_to_parent()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    setup: Setup = connection.recv()
    with contextlib.suppress(OSError):
        os.nice(setup.priority)
    heard = Heard()
    threading.Thread(target=_listen, args=(connection, heard), daemon=True).start()
    try:
        with Model(setup.path, kernels=setup.kernels, options=setup.options) as model:
            learned = Learned(model, setup.threads, ProfileStore(setup.profiles))
            given = (model, learned, heard, connection.send)
            with Rounds(*given, threads=setup.threads, sizes=setup.sizes) as rounds:
                rounds.run()
    except (EdgeConflayersError, MemoryError) as error:
        connection.send(Ended(one_line(error) or "there is not enough memory"))


def _bind_to_parent() -> None:
    """Makes it end with the program that it teaches for, and before it where memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C is not meant for it
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
        # Elsewhere a stopped process whose parent is gone is sent SIGHUP and SIGCONT (POSIX).
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _listen(connection: Connection[Any, Any], heard: Heard) -> None:
    """Takes in what was said until the pipe is closed."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            heard.add(connection.recv())
    os._exit(0)


if __name__ == "__main__":
    main()
