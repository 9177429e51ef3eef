"""A server in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from installed import PACKAGE


@dataclass
class Server:
    """A server that runs.

    Attributes:
        url: that clients reach it by, without "/v1".
        errors: lines of its standard error.
    """

    process: subprocess.Popen[str]
    url: str
    errors: list[str] = field(default_factory=list)


def environment(data: Path) -> dict[str, str]:
    """The environment of a process that keeps what it learns in this folder."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE), "EDGE_CONFLAYERS_DATA": str(data)}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edge_conflayers", *map(str, arguments)]


@contextlib.contextmanager
def serving(data: Path, *arguments: object) -> Iterator[Server]:
    """Runs `serve` on a free port until the block ends."""
    process = subprocess.Popen(
        command("serve", *arguments, "--port", 0),
        env=environment(data),
        cwd=PACKAGE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"at (http://\S+)/v1;", line):
                break
        else:
            raise AssertionError(f"it does not start: {''.join(lines)}")
        server = Server(process, found[1])
        reading = threading.Thread(target=lambda: server.errors.extend(process.stderr or ()))
        reading.start()
        yield server
        process.terminate()
        process.wait(20)
        reading.join()
    finally:
        process.kill()
        process.wait()
