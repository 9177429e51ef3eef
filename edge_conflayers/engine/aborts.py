"""The last resort: what llama.cpp says when it aborts, as one line on standard error.

Where ggml finds a broken assumption it prints a backtrace and aborts; with a debugger installed,
that writes to standard output, where the text goes. ``model_checks`` refuses the files that are
known to lead there; for what remains, the process ends with one line and exit code 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys

from edge_conflayers.engine.ggml import library

_NO_BACKTRACE = "GGML_NO_BACKTRACE"
_PLACE = re.compile(r"^.*/(?=[^/:]+:\d+: )")  # folders of the machine that built the library


def describe(message: str) -> str:
    """The line for what ggml says, which begins with FILE:LINE."""
    text = _PLACE.sub("", " ".join(message.split()))[:300]
    return (
        f"edge-conflayers: llama.cpp gave up ({text}); the model may be damaged:"
        " fetch it again or use another\n"
    )


def _end(message: str) -> None:
    """Ends the process. Called on the thread that failed, which may be one of the library's."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, describe(message).encode())
    os._exit(1)


_on_abort = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(
    lambda message: _end(message.decode("utf-8", errors="replace"))
)
_on_terminate = ctypes.CFUNCTYPE(None)(lambda: _end("an error that nothing takes care of"))


def install() -> None:
    """Ends the process so from now on; where ggml is no library of its own, nothing happens."""
    os.environ.setdefault(_NO_BACKTRACE, "1")
    base = library("ggml-base")
    if base is None:
        return
    base.ggml_set_abort_callback.restype = ctypes.c_void_p
    base.ggml_set_abort_callback(_on_abort)
    # C++ exceptions that nothing catches: the runtime's std::set_terminate, which ggml has set to
    # print a backtrace. Other runtimes than GNU's and LLVM's lack the name.
    with contextlib.suppress(AttributeError):
        terminate = base._ZSt13set_terminatePFvvE
        terminate.restype = ctypes.c_void_p
        terminate(_on_terminate)
