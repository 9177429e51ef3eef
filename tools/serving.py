"""`edge-conflayers serve` in a process of its own, for tools that send it requests.

Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

_FIELDS = {"rss_mib": "VmRSS", "anonymous_mib": "RssAnon", "peak_mib": "VmHWM"}


@contextlib.contextmanager
def serving(model: str, options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Runs a server that knows nothing learned before; its log goes to standard error.

    Args:
        options: further ones of ``serve``.

    Yields:
        Its process and its port.

    Raises:
        SystemExit: it does not start, or does not end well.
    """
    command = [sys.executable, "-m", "edge_conflayers", "serve", model, *options, "--port", "0"]
    with tempfile.TemporaryDirectory() as data:
        process = subprocess.Popen(
            command,
            env={**os.environ, "EDGE_CONFLAYERS_DATA": data},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                print(line, end="", file=sys.stderr)
                if found := re.search(r"at http://\S+:(\d+)/v1;", line):
                    break
            else:
                raise SystemExit("the server does not start")
            log = threading.Thread(target=_show, args=(process.stderr,))
            log.start()
            yield process.pid, int(found[1])
            process.terminate()
            if (code := process.wait(60)) != 0:
                raise SystemExit(f"the server ends with {code}")
            log.join()
        finally:
            process.kill()
            process.wait()


def memory(pid: int) -> dict[str, float]:
    """A process's memory in MiB: resident, the anonymous part of that, and the peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {name: int(status[field].split()[0]) / 1024 for name, field in _FIELDS.items()}


def _show(lines: TextIO) -> None:
    for line in lines:
        print(line, end="", file=sys.stderr)
