"""The C API takes any argument without ending the process, and says what was wrong by a code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from steps import Tiny, assert_same_bits, open_session, random_tokens, set_control_vector, step

from edge_conflayers.engine import binding
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session import ContextFull, LayerMask, Session
from edge_conflayers.engine.session.next_state_head import (
    drawn_from,
    keep_inner_state,
    output_state,
    set_next_state,
)
from edge_conflayers.engine.session.probe import probe, probe_stream
from edge_conflayers.errors import BadInput, EdgeConflayersError

N_LAYER = 4
LARGEST, SMALLEST = 2**31 - 1, -(2**31)


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=N_LAYER)


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 8))
        yield session


def ints(*values: int) -> Any:
    return (ctypes.c_int32 * len(values))(*values)


def floats(n: int) -> Any:
    return (ctypes.c_float * n)()


def doubles(*values: float) -> Any:
    return (ctypes.c_double * len(values))(*values)


def calls(session: Session) -> dict[str, tuple[Any, ...]]:
    """Arguments of every function on a context that can be, with room for any result."""
    model, handle = session.model, session.handle
    n_vocab, n_embd = model.n_vocab, model.n_embd
    tokens, one, pos = ints(5, 6, 7), ints(5), len(session)
    mask = LayerMask.layers({1}).packed(N_LAYER)
    some, probabilities = ints(*[0] * (n_vocab + 100)), floats(n_vocab + 100)
    states, state = floats(300 * n_embd), floats(2 * n_embd)  # the cache has 256 cells
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
    sampler = ctypes.byref(binding.Samplers(chain, None))
    stretch = ctypes.byref(
        binding.Stretch(max_tokens=2, max_seconds=9.0, tokens=ints(0, 0), seconds=doubles(0.0, 0.0))
    )
    options = binding.ecl_draft_default_options()
    options.max_draft, options.n_runners_up = 3, 2
    tree = ctypes.byref(binding.NextTreeOptions(max_depth=3, max_nodes=20))
    last, every = binding.OUTPUTS_LAST, binding.OUTPUTS_ALL
    number = ctypes.byref(ctypes.c_int32())
    many = ctypes.byref(ctypes.c_int64())
    return {
        "ecl_set_mask": (handle, mask, N_LAYER),
        "ecl_step": (handle, tokens, 3, pos, 0, last),
        "ecl_read": (handle, tokens, 3, pos, 0, last),
        "ecl_tree_supported": (handle,),
        "ecl_step_tree": (handle, tokens, ints(-1, 0, 0), 3, pos, 0, every),
        "ecl_argmax": (handle, -1, probabilities),
        "ecl_top_k": (handle, -1, 5, some, probabilities),
        "ecl_draw": (handle, -1, sampler),
        "ecl_write": (handle, one, 1, pos, 0, sampler, stretch),
        "ecl_draft": (handle, mask, N_LAYER, one, 1, pos, 0, options, some, probabilities),
        "ecl_set_draft_vocabulary": (handle, tokens, 3),
        "ecl_set_bridges": (handle, ints(1, 2), floats(n_embd * (3 * n_embd + 1)), 1),
        "ecl_bridge_states": (handle, ints(0, 0), 2, states),
        "ecl_set_next_state": (handle, floats(6 * n_embd**2), 6 * n_embd**2),
        "ecl_output_state": (handle, -1, state),
        "ecl_keep_inner_state": (handle, 1),
        "ecl_inner_state": (handle, -1, state),
        "ecl_token_embedding": (handle, 5, state),
        "ecl_lm_head_row": (handle, 5, state),
        "ecl_next_tokens": (handle, state, 5, 3, some, probabilities),
        "ecl_next_tree": (handle, state, 5, tree, some, probabilities, ints(*[0] * 20)),
        "ecl_probe": (handle, tokens, 3, 0, 1, floats(N_LAYER), floats(N_LAYER), N_LAYER),
        "ecl_probe_stream": (handle, 0, binding.AFTER_FFN, states, 300 * n_embd),
        "ecl_draft_exit": (handle, 2, one, 1, pos, 0, 3, 0.0, some, probabilities, states),
        "ecl_verify_exit": (handle, 2, one, states, 1, pos, 0, number),
        "ecl_set_taught_exits": (handle, ints(1, 3), 2, floats(2 * n_embd), floats(2 * n_embd**2)),
        "ecl_draft_taught": (
            *(handle, floats(2), 2, one, 1, pos, 0, 3, some, probabilities, ints(0, 0, 0)),
            *(states, number),
        ),
        "ecl_keep_streams": (handle, True),
        "ecl_kept_stream": (handle, 1, -1, state),
        "ecl_branches": (handle, mask, N_LAYER, one, None, 1, 2, pos, 0, 0, every, states),
        "ecl_graph_stats": (handle, many, many, number),
    }


def row_calls() -> dict[str, tuple[Any, ...]]:
    """Arguments of every function on a row of logits."""
    row, n, token, probability = floats(64), 64, ints(*[0] * 64), floats(64)
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
    return {
        "ecl_row_argmax": (row, n, probability),
        "ecl_row_top_k": (row, n, 5, token, probability),
        "ecl_row_draw": (row, n, ctypes.byref(binding.Samplers(chain, None))),
    }


MAY_BE_NULL = {
    ("ecl_set_mask", 1),  # no mask
    ("ecl_argmax", 2),  # the probability is not wanted
    ("ecl_row_argmax", 2),
    ("ecl_draft", 1),  # no mask
    ("ecl_set_next_state", 1),  # no head
    ("ecl_branches", 1),  # no mask
    ("ecl_branches", 4),  # the tokens' embeddings
}


def test_every_function_is_called_here(session: Session) -> None:
    declared = {name for name in vars(binding) if name.startswith("ecl_")}
    others = {"ecl_last_error", "ecl_draft_default_options"}  # cannot fail
    assert declared - others == set(calls(session)) | set(row_calls()) | set(SOURCE_CALLS)


def sweep(arguments: tuple[Any, ...], handles: set[int]) -> Iterator[tuple[int, Any, Any]]:
    """Each argument in turn replaced by values that cannot be: its place, the value, and all
    arguments with it."""
    for place, argument in enumerate(arguments):
        if argument is None or isinstance(argument, float | bool):
            continue
        number = isinstance(argument, int) and argument not in handles
        for value in (-1, 0, SMALLEST, LARGEST, 77) if number else (None,):
            yield place, value, (*arguments[:place], value, *arguments[place + 1 :])


def test_no_argument_ends_the_process(session: Session) -> None:
    """Each is null, zero, negative or too large in turn; the session is as usable afterwards."""
    wanted = step(session, [9, 10])
    session.rollback(8)
    for name, arguments in calls(session).items():
        for place, value, changed in sweep(arguments, {session.handle}):
            status = getattr(binding, name)(*changed)
            if value is None and (name, place) not in MAY_BE_NULL:
                assert status == binding.BAD_ARGUMENT, (name, place)
                assert place == 0 or binding.ecl_last_error(session.handle)
            assert status >= binding.NO_EXITS, (name, place, value)
            llama.llama_memory_seq_rm(session.context.memory, 0, 8, -1)
            llama.llama_memory_seq_rm(session.context.memory, 1, -1, -1)
    assert binding.ecl_set_mask(session.handle, None, 0) == 0
    assert binding.ecl_set_draft_vocabulary(session.handle, None, 0) == 0
    session.clear()  # some wrote where they were told to
    session.read(random_tokens(session.model, 8))
    assert_same_bits(step(session, [9, 10]), wanted)


@pytest.mark.parametrize("name", row_calls())
def test_no_argument_of_a_row_ends_the_process(name: str) -> None:
    """Null pointers, and numbers that are no length of an array."""
    function, arguments = getattr(binding, name), row_calls()[name]
    assert function(*arguments) >= 0
    for place, argument in enumerate(arguments):
        for value in (0, -1, SMALLEST) if place == 1 else (None,):
            if place != 1 and isinstance(argument, int):
                continue
            status = function(*arguments[:place], value, *arguments[place + 1 :])
            assert status == binding.BAD_ARGUMENT or (name, place) in MAY_BE_NULL, (name, place)
    if name == "ecl_row_top_k":
        row, n, _, tokens, probabilities = arguments
        assert function(row, n, LARGEST, tokens, probabilities) == n
        assert function(row, n, -1, tokens, probabilities) == binding.BAD_ARGUMENT


@pytest.mark.parametrize("n", [0, -1, SMALLEST, LARGEST, 65])
@pytest.mark.parametrize("name", ["ecl_step", "ecl_read"])
def test_a_number_of_tokens_that_cannot_be(session: Session, name: str, n: int) -> None:
    status = getattr(binding, name)(session.handle, ints(5), n, 8, 0, binding.OUTPUTS_LAST)
    assert status == binding.BAD_ARGUMENT
    assert b"1 to 64 tokens" in binding.ecl_last_error(session.handle)


@pytest.mark.parametrize("token", [-1, SMALLEST, LARGEST])
def test_a_token_that_is_none(session: Session, token: int) -> None:
    with pytest.raises(BadInput, match="not in the vocabulary"):
        session.step([token])
    assert len(session) == 8


def test_a_mask_with_other_bits(session: Session) -> None:
    mask = (ctypes.c_uint8 * N_LAYER)(0, 4, 0, 0)
    assert binding.ecl_set_mask(session.handle, mask, N_LAYER) == binding.BAD_ARGUMENT


def test_a_sampler_that_selects_nothing(session: Session) -> None:
    """A chain without a sampler that selects: llama.cpp's own function ends the process."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    try:
        with pytest.raises(EdgeConflayersError, match="selects no token"):
            samplers = binding.Samplers(chain, None)
            session.context.check(binding.ecl_draw(session.handle, -1, ctypes.byref(samplers)))
    finally:
        llama.llama_sampler_free(chain)


def test_an_error_is_what_its_code_says(session: Session) -> None:
    """Whatever the message is."""
    kinds = {
        binding.NO_ROOM: ContextFull,
        binding.BAD_ARGUMENT: BadInput,
        binding.NO_MASK: BadInput,
        binding.NO_DRAFT_VOCABULARY: BadInput,
        binding.NO_NEXT_STATE: BadInput,
        binding.NO_EXITS: BadInput,
        binding.FORBIDDEN: BadInput,
        binding.ABORTED: EdgeConflayersError,
        binding.FAILED: EdgeConflayersError,
        binding.NO_MEMORY: EdgeConflayersError,
        binding.NO_TREE: EdgeConflayersError,
        binding.NO_OUTPUT: EdgeConflayersError,
        binding.NO_TOKEN: EdgeConflayersError,
    }
    for status, kind in kinds.items():
        with pytest.raises(EdgeConflayersError) as raised:
            session.context.fail(status)
        assert type(raised.value) is kind


def fill(session: Session) -> None:
    """A step that finds no room, after which the last step's logits are still there."""
    n = session.n_ctx - len(session) + 1
    status = binding.ecl_step(
        session.handle, ints(*[5] * n), n, len(session), 0, binding.OUTPUTS_LAST
    )
    assert status == binding.NO_ROOM


def test_states_are_gone_with_their_graph(tiny: Tiny) -> None:
    """A control vector makes the next step free all graphs, even if it then finds no room."""
    model = tiny("llama", n_layer=N_LAYER)
    with open_session(model, n_ctx=256) as session:
        keep_inner_state(session.context, 1)
        session.step(random_tokens(model, 8))
        before = drawn_from(session.context, -1, model.n_embd)
        fill(session)
        assert np.array_equal(drawn_from(session.context, -1, model.n_embd), before)
        set_control_vector(session)
        fill(session)
        for read in (drawn_from, output_state):
            with pytest.raises(EdgeConflayersError, match=r"gone|kept no"):
                read(session.context, -1, model.n_embd)
        session.step([5])
        assert np.isfinite(drawn_from(session.context, -1, model.n_embd)).all()


def test_streams_are_gone_with_their_graph(tiny: Tiny) -> None:
    model = tiny("llama", n_layer=N_LAYER)
    with open_session(model, n_ctx=256) as session:
        session.step(random_tokens(model, 8))
        assert probe(session, [5, 6, 7]) is not None
        assert probe_stream(session, 1, binding.AFTER_FFN, 3).shape == (3, model.n_embd)
        set_control_vector(session)
        fill(session)
        with pytest.raises(EdgeConflayersError, match="no such place"):
            probe_stream(session, 1, binding.AFTER_FFN, 3)


def test_logits_stay_when_graphs_are_freed(tiny: Tiny) -> None:
    """They are read where the graph wrote them."""
    model = tiny("llama", n_layer=N_LAYER)
    with open_session(model, n_ctx=256) as session:
        session.step(random_tokens(model, 8))
        before = session.logits().copy()
        pointer = session.logits()
        set_control_vector(session)
        fill(session)
        assert np.array_equal(pointer, before)


def test_a_head_of_another_size(session: Session) -> None:
    weights = np.ones((session.model.n_embd, 2 * session.model.n_embd), np.float32)
    with pytest.raises(BadInput, match="3 \\* n_embd weights"):
        set_next_state(session.context, weights)


@pytest.mark.parametrize(
    "change",
    [
        {"max_depth": -1},
        {"max_depth": LARGEST},
        {"max_nodes": SMALLEST},
        {"n_bins": -1},
        {"n_bins": 8},  # without chances
    ],
    ids=lambda change: "-".join(change),
)
def test_options_of_a_tree_that_cannot_be(session: Session, change: dict[str, int]) -> None:
    _, *arguments = calls(session)["ecl_next_tree"]
    arguments[2] = ctypes.byref(
        binding.NextTreeOptions(**{"max_depth": 2, "max_nodes": 9} | change)
    )
    assert binding.ecl_next_tree(session.handle, *arguments) == binding.BAD_ARGUMENT


# Of every function on a source: arguments that can be, by the kind of the source.
SOURCE_CALLS: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "ecl_lookup_new": lambda lookup, recycling: (100,),
    "ecl_recycling_new": lambda lookup, recycling: (100,),
    "ecl_given_new": lambda lookup, recycling: (ints(5), doubles(0.5), ints(-1), 1),
    "ecl_given_set": lambda lookup, recycling: (_GIVEN, ints(5), doubles(0.5), ints(-1), 1),
    "ecl_source_free": lambda lookup, recycling: (None,),
    "ecl_source_candidates": lambda lookup, recycling: (
        *(lookup, 3, 0.0, False),
        *(ints(0, 0, 0), doubles(0.0, 0.0, 0.0), ints(0, 0, 0)),
    ),
    "ecl_lookup_restart": lambda lookup, recycling: (lookup, ints(5, 6), 2),
    "ecl_lookup_extend": lambda lookup, recycling: (lookup, ints(5, 6), 2),
    "ecl_lookup_follow": lambda lookup, recycling: (lookup, 5),
    "ecl_recycling_observe": lambda lookup, recycling: (recycling, 5, 6),
    "ecl_recycling_learn": lambda lookup, recycling: (
        *(recycling, ints(5, 6, 7), 1),
        *((ctypes.c_void_p * 1)(ctypes.addressof(_LOGITS)), len(_LOGITS)),
    ),
    "ecl_recycling_size": lambda lookup, recycling: (recycling, binding.RECYCLING_BY_ONE),
    "ecl_recycling_save": lambda lookup, recycling: (
        *(recycling, binding.RECYCLING_BY_ONE, _KEYS, _TOKENS, _KINDS, _RATES, _SEEN),
    ),
    "ecl_recycling_load": lambda lookup, recycling: (
        *(recycling, binding.RECYCLING_BY_ONE, 20, 1, _KEYS, _TOKENS, _KINDS, _RATES, _SEEN),
    ),
    "ecl_choose": lambda lookup, recycling: (
        *((ctypes.c_void_p * 1)(lookup), (ctypes.POINTER(ctypes.c_double) * 1)(_CHANCES), 1),
        *(ctypes.byref(_terms()), ctypes.byref(binding.Choice())),
    ),
}
_GIVEN = binding.ecl_given_new(None, None, None, 0)
_LOGITS = floats(20)
_KEYS, _TOKENS = (ctypes.c_int64 * 4)(7), ints(*range(8))
_KINDS = (ctypes.c_uint8 * 32)()
_RATES, _SEEN = doubles(*[1.0] * 30), doubles(*[2.0] * 30)
_CHANCES = doubles(0.0, 1.0)
_V = doubles(*[1.0] * 40)
_SIZES = ints(1, 2, 3)
CAN_BE_NULL = {("ecl_source_free", 0)}
# Where a number is the length of an array, too large a one cannot be told.
LENGTHS = {
    *(
        ("ecl_given_new", 3),
        ("ecl_given_set", 4),
        ("ecl_lookup_restart", 2),
        ("ecl_lookup_extend", 2),
    ),
    *(("ecl_recycling_learn", 2), ("ecl_recycling_learn", 4), ("ecl_choose", 2)),
    *(("ecl_source_candidates", 1), ("ecl_recycling_new", 0)),
}


def _terms() -> binding.Terms:
    return binding.Terms(
        tokens_per_second=1.0,
        loss_budget=1.0,
        t1=0.01,
        v=_V,
        n_v=39,
        sizes=_SIZES,
        n_sizes=3,
        n_pending=1,
        max_draft=8,
        max_per_source=8,
        n_bins=1,
    )


def test_no_argument_of_a_source_ends_the_process() -> None:
    for name, arguments in SOURCE_CALLS.items():
        lookup, recycling = binding.ecl_lookup_new(100), binding.ecl_recycling_new(10)
        binding.ecl_recycling_learn(*SOURCE_CALLS["ecl_recycling_learn"](lookup, recycling))
        function = getattr(binding, name)
        for place, value, changed in sweep(
            arguments(lookup, recycling), {lookup, recycling, _GIVEN}
        ):
            if value is not None and value > 1 and (name, place) in LENGTHS:
                continue
            result = function(*changed)
            if not name.endswith("_new"):
                if value is None and (name, place) not in CAN_BE_NULL:
                    assert result == binding.BAD_ARGUMENT, (name, place)
            elif value is None or value < 0:
                assert result is None, (name, place, value)
            elif result is not None:
                binding.ecl_source_free(result)
        if name.startswith(("ecl_lookup", "ecl_recycling")) and not name.endswith("_new"):
            # A source of the other kind.
            changed = arguments(recycling, lookup)
            assert function(*changed) == binding.BAD_ARGUMENT, name
        binding.ecl_source_free(lookup)
        binding.ecl_source_free(recycling)


@pytest.mark.parametrize(
    "change",
    [
        {"n_pending": -1},
        {"n_pending": LARGEST},
        {"n_bins": 0},
        {"n_v": -1},
        {"n_v": 0},
        {"n_sizes": -1},
        {"v": None},
        {"sizes": None},
        {"sizes": ints(1, 2, 33)},
        {"max_draft": -1},
        {"max_per_source": SMALLEST},
    ],
    ids=lambda change: "-".join(change),
)
def test_terms_that_cannot_be(change: dict[str, Any]) -> None:
    lookup = binding.ecl_lookup_new(100)
    binding.ecl_lookup_restart(lookup, ints(5, 6, 7, 5, 6), 5)
    terms = _terms()
    sources, chances, n, _, choice = SOURCE_CALLS["ecl_choose"](lookup, None)
    assert binding.ecl_choose(sources, chances, n, ctypes.byref(terms), choice) > 0
    for field, value in change.items():
        setattr(terms, field, value)
    assert binding.ecl_choose(sources, chances, n, ctypes.byref(terms), choice) <= 0
    binding.ecl_source_free(lookup)


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    binding._check_abi()
    monkeypatch.setattr(binding, "_ABI_VERSION", binding._ABI_VERSION + 1)
    with pytest.raises(EdgeConflayersError, match="has ABI version 2, this package needs 3"):
        binding._check_abi()


@pytest.mark.parametrize("struct", binding._STRUCTS)
def test_a_struct_of_another_layout_is_refused(
    monkeypatch: pytest.MonkeyPatch, struct: type[ctypes.Structure]
) -> None:
    fields = list(struct._fields_)
    moved = type(struct.__name__, (ctypes.Structure,), {"_fields_": (fields[-1], *fields[:-1])})
    longer = type(
        struct.__name__, (ctypes.Structure,), {"_fields_": (*fields, ("more", ctypes.c_double))}
    )
    structs = binding._STRUCTS
    for other in (longer,) if struct is binding.Samplers else (moved, longer):  # two pointers
        changed = tuple(other if each is struct else each for each in structs)
        monkeypatch.setattr(binding, "_STRUCTS", changed)
        with pytest.raises(EdgeConflayersError, match=f"lays out {struct.__name__} otherwise"):
            binding._check_abi()
