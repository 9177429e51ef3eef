"""The library's ``ecl_*`` functions and structures, declared for ctypes.

Raises on import:
    EdgeConflayersError: as ``native``, or the library is of another version than this package.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edge_conflayers.engine.cpu_kernels import KernelChoice as KernelChoice
from edge_conflayers.engine.cpu_kernels import default_kernels as default_kernels
from edge_conflayers.engine.cpu_kernels import kernels as kernels
from edge_conflayers.engine.cpu_kernels import loading_for as loading_for
from edge_conflayers.engine.native import LIBRARY, llama
from edge_conflayers.errors import EdgeConflayersError

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
NO_EXITS = -13

_ABI_VERSION = 2
"""ECL_ABI_VERSION of ecl.h."""


_missing: list[str] = []


def _declare(name: str, restype: Any, *argtypes: Any) -> Any:
    try:
        function = getattr(LIBRARY, name)
    except AttributeError:
        _missing.append(name)
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
ecl_step_tree = _declare("ecl_step_tree", _int, _context, _tokens, _tokens, *(_int,) * 4)
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
ecl_row_argmax = _declare("ecl_row_argmax", _int, _floats, _int, _floats)
ecl_row_top_k = _declare("ecl_row_top_k", _int, _floats, _int, _int, _tokens, _floats)
ecl_row_draw = _declare("ecl_row_draw", _int, _floats, _int, ctypes.POINTER(Samplers))
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
        ("before", _floats),
    )


ecl_draft_default_options = _declare("ecl_draft_default_options", DraftOptions)
ecl_draft = _declare(
    "ecl_draft",
    _int,
    *(_context, _mask, _int, _tokens, _int, _int, _int),
    *(ctypes.POINTER(DraftOptions), _tokens, _floats),
)
ecl_set_draft_vocabulary = _declare("ecl_set_draft_vocabulary", _int, _context, _tokens, _int)
ecl_set_bridges = _declare("ecl_set_bridges", _int, _context, _tokens, _floats, _int)
ecl_bridge_states = _declare("ecl_bridge_states", _int, _context, _tokens, _int, _floats)
ecl_set_next_state = _declare("ecl_set_next_state", _int, _context, _floats, ctypes.c_int64)
ecl_output_state = _declare("ecl_output_state", _int, _context, _int, _floats)
ecl_keep_inner_state = _declare("ecl_keep_inner_state", _int, _context, _int)
ecl_inner_state = _declare("ecl_inner_state", _int, _context, _int, _floats)
ecl_token_embedding = _declare("ecl_token_embedding", _int, _context, _int, _floats)
ecl_lm_head_row = _declare("ecl_lm_head_row", _int, _context, _int, _floats)
ecl_next_tokens = _declare("ecl_next_tokens", _int, _context, _floats, _int, _int, _tokens, _floats)


class NextTreeOptions(ctypes.Structure):
    """``ecl_next_tree_options`` of ecl.h."""

    _fields_ = (
        ("max_depth", ctypes.c_int32),
        ("max_nodes", ctypes.c_int32),
        ("n_bins", ctypes.c_int32),
        ("min_path", ctypes.c_double),
        ("min_expand", ctypes.c_double),
        ("min_join", ctypes.c_double),
        ("chances", _doubles),
    )


ecl_next_tree = _declare(
    "ecl_next_tree",
    _int,
    *(_context, _floats, _int, ctypes.POINTER(NextTreeOptions), _tokens, _floats, _tokens),
)
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
ecl_set_taught_exits = _declare(
    "ecl_set_taught_exits", _int, _context, _tokens, _int, _floats, _floats
)
ecl_draft_taught = _declare(
    "ecl_draft_taught",
    _int,
    *(_context, _floats, _int, _tokens, _int, _int, _int, _int),
    *(_tokens, _floats, _tokens, _floats, ctypes.POINTER(_int)),
)
ecl_keep_streams = _declare("ecl_keep_streams", _int, _context, ctypes.c_bool)
ecl_kept_stream = _declare("ecl_kept_stream", _int, _context, _int, _int, _floats)
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

_long = ctypes.POINTER(ctypes.c_int64)
ecl_graph_stats = _declare("ecl_graph_stats", _int, _context, _long, _long, _tokens)
logits_address = LIBRARY["llama_get_logits_ith"]
"""llama.h's function, as an address: of a context and an index; None if no logits were kept."""
logits_address.restype = ctypes.c_void_p
logits_address.argtypes = (_context, _int)

ecl_last_error = _declare("ecl_last_error", ctypes.c_char_p, _context)

PATCHED = ecl_step is not None
"""Whether the library has our functions; upstream's own has none."""

_abi_version = _declare("ecl_abi_version", _int)
_struct_layout = _declare("ecl_struct_layout", _int, _int, ctypes.POINTER(_int), _int)
_STRUCTS: tuple[type[ctypes.Structure], ...] = (
    Samplers,
    Stretch,
    DraftOptions,
    Terms,
    Choice,
    NextTreeOptions,
)
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
    if _missing:
        raise EdgeConflayersError(
            f"the library {LIBRARY._name} lacks {_missing[0]}; build and install both from the"
            " same sources"
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
