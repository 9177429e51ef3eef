"""The command line in a process of its own, at a terminal, and what then stands on the screen."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from installed import PACKAGE

needs_terminals = pytest.mark.skipif(
    not hasattr(os, "openpty"), reason="there are no terminals to open here"
)

# As the installed command, with every stage of progress shown, however short it is.
_CODE = """
import sys
import edge_conflayers.cli.progress as progress
from edge_conflayers.__main__ import main
progress._AFTER = progress._APART = 0.0
begin = progress.Progress.begin
progress.Progress.begin = lambda self, *stage, at_once=False: begin(self, *stage, at_once=True)
main()
"""


@dataclass(frozen=True)
class Done:
    """What a process has left.

    Attributes:
        code: its exit code.
        stdout: what went to standard output, a pipe; "" where that is the terminal.
        shown: what went to the terminal.
    """

    code: int
    stdout: str
    shown: str


def at_terminal(
    *arguments: object,
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    output_too: bool = False,
) -> Done:
    """Runs the command line with a terminal for standard error.

    Args:
        environment: variables beside the test's own.
        output_too: standard output is the terminal as well, not a pipe.
    """
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm", **(environment or {})}
    process: Any = subprocess.Popen(
        [sys.executable, "-c", _CODE, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs if output_too else subprocess.PIPE,
        stderr=theirs,
        cwd=PACKAGE,
        env=variables,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # at the end
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    out = b"" if output_too else process.stdout.read()
    return Done(process.wait(60), out.decode(), shown.decode())


def screen(shown: str) -> list[str]:
    """The lines that stand on a screen that is wide enough, without colours."""
    lines, column = [""], 0
    for character in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown):
        if character == "\n":
            lines.append("")
        elif character == "\r":
            column = 0
            continue
        else:
            line = lines[-1].ljust(column)
            lines[-1] = line[:column] + character + line[column + 1 :]
            column += 1
            continue
        column = 0
    return [line.rstrip() for line in lines if line.strip()]
