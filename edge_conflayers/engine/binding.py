"""Loads the patched llama.cpp under llama-cpp-python's binding, and declares its ``ecl_*``
functions.

The only module that speaks ctypes to the library. llama-cpp-python's Python files come out of the
same archive as the library (``native/upstream.toml``) and are loaded from inside this package, so
no other installed copy can be mixed with it.

Raises on import:
    EdgeConflayersError: the library is not built, does not load, or another llama_cpp is loaded
    already.
"""

from __future__ import annotations

import collections
import ctypes
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import edge_conflayers
from edge_conflayers.errors import EdgeConflayersError

# Another build of the library to load instead, for comparisons; one without ecl_* is upstream's.
LIBRARY_VARIABLE = "EDGE_CONFLAYERS_LIB"

DROP_ATTENTION = 1
DROP_FFN = 2

OUTPUTS_NONE = 0
OUTPUTS_LAST = 1
OUTPUTS_ALL = 2

BEFORE_ATTENTION = 0
AFTER_ATTENTION = 1
AFTER_FFN = 2

STREAM_NONE = -1
STREAM_ALL = -2
KernelChoice = Literal["ecl", "upstream", "upstream-as-is"]
_KERNEL_CHOICES: dict[KernelChoice, int] = {"upstream": 0, "ecl": 1, "upstream-as-is": 2}

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
        "the native library is not built; install the package with `pip install .` (README, Build)"
    )


def _load_binding() -> ModuleType:
    """llama-cpp-python's low-level module, bound to our library."""
    native = _native_folder()
    library = Path(os.environ.get(LIBRARY_VARIABLE) or native / "lib").resolve()
    loaded = sys.modules.get("llama_cpp")
    if loaded is not None:
        if Path(str(loaded.__file__)).parent != native / "llama_cpp":
            raise EdgeConflayersError(
                f"another llama_cpp ({loaded.__file__}) is already loaded in this process;"
                " import edge_conflayers first, or use it in a process of its own"
            )
        return sys.modules["llama_cpp.llama_cpp"]
    spec = importlib.util.spec_from_file_location(
        "llama_cpp",
        native / "llama_cpp" / "__init__.py",
        submodule_search_locations=[str(native / "llama_cpp")],
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["llama_cpp"] = package
    before = os.environ.get("LLAMA_CPP_LIB_PATH")
    os.environ["LLAMA_CPP_LIB_PATH"] = str(library)
    try:
        spec.loader.exec_module(package)
    except (OSError, RuntimeError) as error:
        for name in [n for n in sys.modules if n.partition(".")[0] == "llama_cpp"]:
            del sys.modules[name]
        why = " ".join(str(error).split())
        raise EdgeConflayersError(f"the library in {library} does not load: {why}") from error
    finally:
        if before is None:
            del os.environ["LLAMA_CPP_LIB_PATH"]
        else:
            os.environ["LLAMA_CPP_LIB_PATH"] = before
    return sys.modules["llama_cpp.llama_cpp"]


llama: Any = _load_binding()
_library: Any = llama._lib


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


def _declare(name: str, restype: Any, *argtypes: Any) -> Any:
    try:
        function = getattr(_library, name)
    except AttributeError:
        return None  # upstream's own library
    function.restype = restype
    function.argtypes = argtypes
    return function


_context = llama.llama_context_p_ctypes
_tokens = ctypes.POINTER(ctypes.c_int32)
_floats = ctypes.POINTER(ctypes.c_float)
_doubles = ctypes.POINTER(ctypes.c_double)
_mask = ctypes.POINTER(ctypes.c_uint8)
_int = ctypes.c_int32

ecl_set_mask = _declare("ecl_set_mask", _int, _context, _mask, _int)
ecl_step = _declare("ecl_step", _int, _context, _tokens, _int, _int, _int, _int)
ecl_tree_supported = _declare("ecl_tree_supported", _int, _context)
ecl_step_tree = _declare(
    "ecl_step_tree", _int, _context, _tokens, ctypes.POINTER(_int), _int, _int, _int, _int
)
ecl_read = _declare("ecl_read", _int, _context, _tokens, _int, _int, _int, _int)
ecl_argmax = _declare("ecl_argmax", _int, _context, _int, _floats)
ecl_top_k = _declare("ecl_top_k", _int, _context, _int, _int, _tokens, _floats)


class Samplers(ctypes.Structure):
    """``ecl_sampler`` of ecl.h."""

    _fields_ = (("chain", llama.llama_sampler_p_ctypes), ("grammar", llama.llama_sampler_p_ctypes))
    error: BaseException | None = None
    """What has gone wrong in a grammar that calls back into Python: nothing is raised through C."""

    def check(self) -> None:
        """Raises ``error``, if there is one."""
        if self.error is not None:
            raise self.error


class Stretch(ctypes.Structure):
    """``ecl_stretch`` of ecl.h."""

    _fields_ = (
        ("n_max", ctypes.c_int32),
        ("max_seconds", ctypes.c_double),
        ("following", ctypes.POINTER(ctypes.c_void_p)),
        ("n_following", ctypes.c_int32),
        ("expected", ctypes.c_double),
        ("tokens", _tokens),
        ("seconds", _doubles),
        ("n_drawn", ctypes.c_int32),
        ("called", ctypes.c_bool),
    )


NO_TOKEN = -103
ecl_draw = _declare("ecl_draw", _int, _context, _int, ctypes.POINTER(Samplers))
ecl_write = _declare(
    "ecl_write",
    _int,
    *(_context, _tokens, _int, _int, _int),
    *(ctypes.POINTER(Samplers), ctypes.POINTER(Stretch)),
)


class DraftOptions(ctypes.Structure):
    """``ecl_draft_options`` of ecl.h."""

    _fields_ = (
        ("n_max", ctypes.c_int32),
        ("stop_probability", ctypes.c_float),
        ("stop_path", ctypes.c_float),
        ("least_path", ctypes.c_float),
        ("acceptance", _floats),
        ("n_acceptance", ctypes.c_int32),
        ("full_vocabulary", ctypes.c_bool),
        ("keep", ctypes.c_bool),
        ("n_runners_up", ctypes.c_int32),
    )


ecl_draft_default_options = _declare("ecl_draft_default_options", DraftOptions)
ecl_draft = _declare(
    "ecl_draft",
    _int,
    *(_context, _mask, _int, _tokens, _int, _int, _int),
    *(ctypes.POINTER(DraftOptions), _tokens, _floats),
)
ecl_set_draft_vocabulary = _declare("ecl_set_draft_vocabulary", _int, _context, _tokens, _int)
ecl_draft_logits = _declare("ecl_draft_logits", _floats, _context)
ecl_set_next_state = _declare("ecl_set_next_state", _int, _context, _floats)
ecl_output_state = _declare("ecl_output_state", _int, _context, _int, _floats)
ecl_keep_inner_state = _declare("ecl_keep_inner_state", _int, _context, _int)
ecl_inner_state = _declare("ecl_inner_state", _int, _context, _int, _floats)
ecl_token_embedding = _declare("ecl_token_embedding", _int, _context, _int, _floats)
ecl_next_tokens = _declare("ecl_next_tokens", _int, _context, _floats, _int, _int, _tokens, _floats)
ecl_probe = _declare("ecl_probe", _int, _context, _tokens, _int, _int, _int, _floats, _floats, _int)
ecl_probe_stream = _declare("ecl_probe_stream", _int, _context, _int, _int, _floats, _int)
ecl_step_states = _declare(
    "ecl_step_states", _int, _context, _tokens, _floats, _int, _int, _int, _int
)
ecl_draft_exit = _declare(
    "ecl_draft_exit",
    _int,
    *(_context, _int, _tokens, _int, _int, _int, _int, ctypes.c_float, _tokens, _floats, _floats),
)
ecl_verify_exit = _declare(
    "ecl_verify_exit",
    _int,
    *(_context, _int, _tokens, _floats, _int, _int, _int, ctypes.POINTER(_int)),
)
ecl_branches = _declare(
    "ecl_branches",
    _int,
    *(_context, _mask, _int, _tokens, _floats, _int, _int, _int, _int, _int, _int, _floats),
)


class Terms(ctypes.Structure):
    """``ecl_terms`` of ecl_sources.h."""

    _fields_ = (
        ("rate", ctypes.c_double),
        ("spare", ctypes.c_double),
        ("least_chance", ctypes.c_double),
        ("t1", ctypes.c_double),
        ("v", _doubles),
        ("sizes", _tokens),
        ("n_v", _int),
        ("n_sizes", _int),
        ("n_pending", _int),
        ("limit", _int),
        ("most", _int),
        ("n_bins", _int),
        ("chain", ctypes.c_bool),
    )


_MAX_TREE = 32


class Choice(ctypes.Structure):
    """``ecl_choice`` of ecl_sources.h."""

    _fields_ = (
        ("tokens", _int * _MAX_TREE),
        ("parents", _int * _MAX_TREE),
        ("sources", _int * _MAX_TREE),
        ("probabilities", ctypes.c_double * _MAX_TREE),
        ("gain", ctypes.c_double),
    )


RECYCLING_WIDTH = 8
RECYCLING_KINDS = 30
RECYCLING_BY_ONE = 0
RECYCLING_BY_TWO = 1

_source = ctypes.c_void_p
_array = ctypes.c_void_p  # any array of the right element type
ecl_lookup_new = _declare("ecl_lookup_new", _source, _int)
ecl_recycling_new = _declare("ecl_recycling_new", _source, _int)
ecl_given_new = _declare("ecl_given_new", _source, _tokens, _doubles, _tokens, _int)
ecl_source_free = _declare("ecl_source_free", None, _source)
ecl_source_candidates = _declare(
    "ecl_source_candidates",
    _int,
    *(_source, _int, ctypes.c_double, ctypes.c_bool, _tokens, _doubles, _tokens),
)
ecl_lookup_restart = _declare("ecl_lookup_restart", _int, _source, _tokens, _int)
ecl_lookup_extend = _declare("ecl_lookup_extend", _int, _source, _tokens, _int)
ecl_lookup_follow = _declare("ecl_lookup_follow", ctypes.c_double, _source, _int)
ecl_recycling_observe = _declare("ecl_recycling_observe", _int, _source, _int, _int)
ecl_recycling_learn = _declare(
    "ecl_recycling_learn", _int, _source, _tokens, _int, ctypes.POINTER(ctypes.c_void_p), _int
)
ecl_recycling_size = _declare("ecl_recycling_size", _int, _source, _int)
ecl_recycling_save = _declare("ecl_recycling_save", _int, _source, _int, *(_array,) * 5)
ecl_recycling_load = _declare("ecl_recycling_load", _int, _source, _int, _int, _int, *(_array,) * 5)
ecl_choose = _declare(
    "ecl_choose",
    _int,
    *(ctypes.POINTER(_source), ctypes.POINTER(_doubles), _int),
    *(ctypes.POINTER(Terms), ctypes.POINTER(Choice)),
)

ecl_graph_stats = _declare(
    "ecl_graph_stats",
    None,
    _context,
    *(ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(_int)),
)
logits_address = _library["llama_get_logits_ith"]
"""llama.h's function, as an address: of a context and an index; None if no logits were kept."""
logits_address.restype = ctypes.c_void_p
logits_address.argtypes = (_context, _int)

ecl_last_error = _declare("ecl_last_error", ctypes.c_char_p, _context)

PATCHED = ecl_step is not None


def _cpu_kernels() -> Any:
    """The library of ggml's CPU backend, which libllama has loaded already; None if it has no
    kernels of ours (upstream's own build, or a compiler that cannot build them)."""
    for suffix in (".so", ".dylib", ".dll"):
        for prefix in ("lib", ""):
            path = Path(_library._name).parent / f"{prefix}ggml-cpu{suffix}"
            if path.exists():
                cpu = ctypes.CDLL(str(path))
                return cpu if hasattr(cpu, "ecl_kernels_describe") else None
    return None


_cpu = _cpu_kernels()
if _cpu is not None:
    _cpu.ecl_kernels_describe.restype = ctypes.c_char_p


def choose_kernels(choice: KernelChoice) -> None:
    """Which CPU kernels models loaded from now on use: ours (the default), upstream's with every
    token's bits those of a one-token step, or upstream's as it is, batches included."""
    if _cpu is not None:
        _cpu.ecl_kernels_choose(_KERNEL_CHOICES[choice])


def kernels() -> dict[str, Any]:
    """Which CPU kernel serves each weight format here: ``{"enabled": bool, "exact": bool, "isa":
    name, "formats": {format: isa or "upstream"}}``; exact: a token has the same bits alone and in a
    small batch."""
    if _cpu is None:
        return {"enabled": False, "exact": False, "isa": "none", "formats": {}}
    described: dict[str, Any] = json.loads(_cpu.ecl_kernels_describe())
    return described
