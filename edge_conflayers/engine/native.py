"""Loads the patched llama.cpp under llama-cpp-python's binding, and keeps what it logs.

llama-cpp-python's Python files come out of the same archive as the library
(``native/upstream.toml``) and are loaded from inside this package, under a name of their own: an
installed llama_cpp keeps its name and its library, in this process too.

Raises on import:
    EdgeConflayersError: the library is not built or does not load.
"""

from __future__ import annotations

import collections
import ctypes
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import edge_conflayers
from edge_conflayers.errors import EdgeConflayersError

# Another build of the library to load instead, for comparisons; one without ecl_* is upstream's.
LIBRARY_VARIABLE = "EDGE_CONFLAYERS_LIB"
_BINDING = "edge_conflayers._native.llama_cpp"

_LOG_LEVELS = {1: "debug", 2: "info", 3: "warning", 4: "error"}
_LOG_CONTINUED = 5
_FUNCTION_NAMES = re.compile(r"^(\w+: |error loading model: |error loading model architecture: )+")


def _native_folder() -> Path:
    # An editable install keeps built files apart from the sources; __path__ names both places.
    for folder in edge_conflayers.__path__:
        native = Path(folder) / "_native"
        if (native / "lib").is_dir():
            return native
    raise EdgeConflayersError(
        "the native library is not built; install the package with `pip install .`"
        " (docs/building.md)"
    )


def _load_binding() -> ModuleType:
    """llama-cpp-python's low-level module, bound to our library."""
    native = _native_folder()
    library = Path(os.environ.get(LIBRARY_VARIABLE) or native / "lib").resolve()
    spec = importlib.util.spec_from_file_location(
        _BINDING,
        native / "llama_cpp" / "__init__.py",
        submodule_search_locations=[str(native / "llama_cpp")],
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_BINDING] = package
    before = os.environ.get("LLAMA_CPP_LIB_PATH")
    os.environ["LLAMA_CPP_LIB_PATH"] = str(library)
    try:
        spec.loader.exec_module(package)
    except (ImportError, OSError, RuntimeError) as error:
        for name in [n for n in sys.modules if f"{n}.".startswith(f"{_BINDING}.")]:
            del sys.modules[name]
        why = " ".join(str(error).split())
        raise EdgeConflayersError(f"the library in {library} does not load: {why}") from error
    finally:
        if before is None:
            del os.environ["LLAMA_CPP_LIB_PATH"]
        else:
            os.environ["LLAMA_CPP_LIB_PATH"] = before
    return sys.modules[f"{_BINDING}.llama_cpp"]


def binding_module(name: str) -> Any:
    """Another module of llama-cpp-python's, which is loaded with the first."""
    return sys.modules[f"{_BINDING}.{name}"]


def binding_modules() -> dict[str, ModuleType]:
    """All of them that are loaded, by their names in ``llama_cpp``; "" for the package."""
    return {
        name.removeprefix(_BINDING).lstrip("."): module
        for name, module in list(sys.modules.items())
        if f"{name}.".startswith(f"{_BINDING}.")
    }


llama: Any = _load_binding()
LIBRARY: Any = llama._lib
"""The library itself, for ctypes."""


_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class LogBuffer:
    """What the library logs: kept for error messages, shown on stderr only when asked for."""

    def __init__(self) -> None:
        self.show = False
        self.recent: collections.deque[str] = collections.deque(maxlen=60)
        self._level = "info"
        self.callback = _log_callback(self._receive)

    def _receive(self, level: int, text: bytes, _data: Any) -> None:
        if level != _LOG_CONTINUED:
            self._level = _LOG_LEVELS.get(level, "info")
        line = text.decode("utf-8", errors="replace")
        if self._level in ("warning", "error"):
            self.recent.append(line.strip())
        if self.show:
            sys.stderr.write(line)

    def first_error(self) -> str:
        """The first thing that went wrong since ``recent`` was cleared (what follows it are its
        consequences), without the names of functions; empty if nothing did."""
        for line in self.recent:
            if any(word in line.lower() for word in ("error", "failed", "unknown", "invalid")):
                return _FUNCTION_NAMES.sub("", line)
        return _FUNCTION_NAMES.sub("", self.recent[-1]) if self.recent else ""


log = LogBuffer()
llama.llama_log_set(log.callback, None)
llama.llama_backend_init()
