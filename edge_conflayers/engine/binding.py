"""The library's ``ecl_*`` functions and structures, declared for ctypes.

Raises on import:
    EdgeConflayersError: as ``native``, or the library is of another version than this package.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from edge_conflayers.engine.native import LIBRARY, llama
from edge_conflayers.errors import BadInput, EdgeConflayersError

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

# ecl_status.h: what functions return when they fail.
BAD_ARGUMENT = -1
NO_ROOM = -2
ABORTED = -3
FAILED = -4
NO_MEMORY = -5
NO_MASK = -6
NO_DRAFT_VOCABULARY = -7
NO_NEXT_STATE = -8
NO_TREE = -9
NO_OUTPUT = -10
NO_TOKEN = -11
FORBIDDEN = -12

_ABI_VERSION = 1
"""ECL_ABI_VERSION of ecl.h."""

KernelChoice = Literal["ecl", "upstream", "upstream-as-is"]
_KERNEL_CHOICES: dict[KernelChoice, int] = {"upstream": 0, "ecl": 1, "upstream-as-is": 2}


def _declare(name: str, restype: Any, *argtypes: Any) -> Any:
    try:
        function = getattr(LIBRARY, name)
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
        ("max_tokens", ctypes.c_int32),
        ("max_seconds", ctypes.c_double),
        ("lookups", ctypes.POINTER(ctypes.c_void_p)),
        ("n_lookups", ctypes.c_int32),
        ("stop_probability", ctypes.c_double),
        ("tokens", _tokens),
        ("seconds", _doubles),
        ("n_drawn", ctypes.c_int32),
        ("found_match", ctypes.c_bool),
    )


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
        ("max_draft", ctypes.c_int32),
        ("stop_probability", ctypes.c_float),
        ("stop_path", ctypes.c_float),
        ("min_path", ctypes.c_float),
        ("acceptance", _floats),
        ("n_acceptance", ctypes.c_int32),
        ("full_vocabulary", ctypes.c_bool),
        ("keep_cells", ctypes.c_bool),
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
ecl_set_next_state = _declare("ecl_set_next_state", _int, _context, _floats, ctypes.c_int64)
ecl_output_state = _declare("ecl_output_state", _int, _context, _int, _floats)
ecl_keep_inner_state = _declare("ecl_keep_inner_state", _int, _context, _int)
ecl_inner_state = _declare("ecl_inner_state", _int, _context, _int, _floats)
ecl_token_embedding = _declare("ecl_token_embedding", _int, _context, _int, _floats)
ecl_next_tokens = _declare("ecl_next_tokens", _int, _context, _floats, _int, _int, _tokens, _floats)
ecl_probe = _declare("ecl_probe", _int, _context, _tokens, _int, _int, _int, _floats, _floats, _int)
ecl_probe_stream = _declare("ecl_probe_stream", _int, _context, _int, _int, _floats, _int)
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
        ("tokens_per_second", ctypes.c_double),
        ("loss_budget", ctypes.c_double),
        ("min_chance", ctypes.c_double),
        ("t1", ctypes.c_double),
        ("v", _doubles),
        ("sizes", _tokens),
        ("n_v", _int),
        ("n_sizes", _int),
        ("n_pending", _int),
        ("max_draft", _int),
        ("max_per_source", _int),
        ("n_bins", _int),
        ("chain_only", ctypes.c_bool),
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
ecl_given_set = _declare("ecl_given_set", _int, _source, _tokens, _doubles, _tokens, _int)
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
    _int,
    _context,
    *(ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(_int)),
)
logits_address = LIBRARY["llama_get_logits_ith"]
"""llama.h's function, as an address: of a context and an index; None if no logits were kept."""
logits_address.restype = ctypes.c_void_p
logits_address.argtypes = (_context, _int)

ecl_last_error = _declare("ecl_last_error", ctypes.c_char_p, _context)

PATCHED = ecl_step is not None
"""Whether the library has our functions; upstream's own has none."""

_abi_version = _declare("ecl_abi_version", _int)
_struct_layout = _declare("ecl_struct_layout", _int, _int, ctypes.POINTER(_int), _int)
_STRUCTS: tuple[type[ctypes.Structure], ...] = (Samplers, Stretch, DraftOptions, Terms, Choice)
"""In the order of ``ecl_struct`` of ecl.h."""


def _check_abi() -> None:
    """Refuses a library that this module was not written for.

    Raises:
        EdgeConflayersError: it has another version, or a struct of it another layout.
    """
    if not PATCHED:
        return
    found = _abi_version() if _abi_version is not None else 0
    if found != _ABI_VERSION:
        raise EdgeConflayersError(
            f"the library {LIBRARY._name} has ABI version {found}, this package needs"
            f" {_ABI_VERSION}; build and install both from the same sources"
        )
    for number, struct in enumerate(_STRUCTS):
        offsets = [getattr(struct, field[0]).offset for field in struct._fields_]
        wanted = [ctypes.sizeof(struct), *offsets]
        layout = (_int * len(wanted))()
        if _struct_layout(number, layout, len(layout)) != len(wanted) or [*layout] != wanted:
            raise EdgeConflayersError(
                f"the library {LIBRARY._name} lays out {struct.__name__} otherwise than this"
                " package; build and install both from the same sources"
            )


_check_abi()


def _cpu_kernels() -> Any:
    """The library of ggml's CPU backend, which libllama has loaded already; None in upstream's own
    build, which knows nothing of ours."""
    for suffix in (".so", ".dylib", ".dll"):
        for prefix in ("lib", ""):
            path = Path(LIBRARY._name).parent / f"{prefix}ggml-cpu{suffix}"
            if path.exists():
                cpu = ctypes.CDLL(str(path))
                return cpu if hasattr(cpu, "ecl_kernels_describe") else None
    return None


_cpu = _cpu_kernels()
if _cpu is not None:
    _cpu.ecl_kernels_describe.restype = ctypes.c_char_p


def default_kernels() -> KernelChoice:
    """What the environment variable ECL_KERNELS asks for; ours without it."""
    wanted = os.environ.get("ECL_KERNELS")
    return next((choice for choice in _KERNEL_CHOICES if choice == wanted), "ecl")


@contextlib.contextmanager
def loading_for(choice: KernelChoice) -> Iterator[None]:
    """Has the models that this thread loads use these CPU kernels for good.

    Raises:
        BadInput: there are none of that name.
    """
    if choice not in _KERNEL_CHOICES:
        raise BadInput(f"kernels are one of {', '.join(_KERNEL_CHOICES)}, not '{choice}'")
    if _cpu is None:
        yield
        return
    before = _cpu.ecl_kernels_chosen()
    _cpu.ecl_kernels_choose(_KERNEL_CHOICES[choice])
    try:
        yield
    finally:
        _cpu.ecl_kernels_choose(before)


@functools.lru_cache
def kernels(choice: KernelChoice | None = None) -> dict[str, Any]:
    """What a choice of kernels means on this CPU.

    Args:
        choice: None for ``default_kernels()``.

    Returns:
        ``{"enabled": bool, "exact": bool, "isa": name, "formats": {format: isa or "upstream"}}``.
        enabled: our kernels are used. exact: a token has the same bits alone and in a small batch.
        isa: the instruction set of our kernels, or "none". formats: what serves each weight format.
    """
    if _cpu is None:
        return {"enabled": False, "exact": False, "isa": "none", "formats": {}}
    described: dict[str, Any] = json.loads(
        _cpu.ecl_kernels_describe(_KERNEL_CHOICES[choice or default_kernels()])
    )
    return described
