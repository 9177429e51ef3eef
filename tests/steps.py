"""Steps of a session as arrays, and their comparison to the bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session import LayerMask, Session

Logits = npt.NDArray[np.float32]

# Of sessions whose heads' sizes divide by 32
CACHES: dict[str, dict[str, Any]] = {
    "flash": {"flash_attention": True},
    "no-flash": {"flash_attention": False},
    "q8_0": {"flash_attention": True, "kv_type": "q8_0"},
    "threads": {"flash_attention": True, "threads": 2},
}

# conftest.py's fixtures
TinyPath = Callable[..., Path]
Tiny = Callable[..., Model]
ModelAt = Callable[[Path], Model]
RealModel = Callable[[str], Model]


def random_tokens(model: Model, n: int, seed: int = 0) -> list[int]:
    """Tokens of the model, control tokens left out."""
    rng = np.random.default_rng(seed)
    return [int(t) for t in rng.integers(3, model.n_vocab, n)]


def open_session(model: Model, **settings: Any) -> Session:
    """A session on one thread that keeps the logits of steps of any size."""
    return Session(model, **{"threads": 1, "max_outputs": 512, **settings})


def set_control_vector(session: Session) -> None:
    """Adds the same vector to every layer's output but the first's, from the next step on."""
    n_layer, n_embd = session.model.n_layer, session.model.n_embd
    values = np.random.default_rng(7).standard_normal((n_layer - 1) * n_embd).astype(np.float32)
    pointer = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    status = llama.llama_set_adapter_cvec(
        session.handle, pointer, values.size, n_embd, 1, n_layer - 1
    )
    assert status == 0


def saved_bytes(session: Session) -> bytes:
    """The text's keys, values, positions and cells, as llama.cpp saves them."""
    size = llama.llama_state_seq_get_size(session.handle, 0)
    saved = (ctypes.c_uint8 * size)()
    assert llama.llama_state_seq_get_data(session.handle, saved, size, 0) == size
    return bytes(saved)


def kept_logits(session: Session, n: int) -> Logits:
    """The first n kept outputs of the last step: float32 [n, n_vocab], copied."""
    return np.stack([session.logits(i) for i in range(n)])


def step(session: Session, tokens: Sequence[int]) -> Logits:
    """Every token's logits of one step: float32 [tokens, n_vocab], copied."""
    session.step(tokens, outputs="all")
    return kept_logits(session, len(tokens))


def verify(session: Session, pending: Sequence[int], draft: Draft) -> Logits:
    """Every token's logits of a verification: float32 [pending + drafted, n_vocab], copied."""
    session.verify(pending, draft)
    return kept_logits(session, len(pending) + len(draft.tokens))


def decode(session: Session, tokens: Sequence[int], sizes: Sequence[int]) -> Logits:
    """Every token's logits, the tokens taken in steps of these sizes (which repeat)."""
    rows: list[Logits] = []
    begin = 0
    while begin < len(tokens):
        size = sizes[len(rows) % len(sizes)]
        rows.append(step(session, tokens[begin : begin + size]))
        begin += size
    return np.concatenate(rows)


def text_logits(
    model: Model, tokens: Sequence[int], prompt: int, mask: LayerMask | None = None, **settings: Any
) -> Logits:
    """Every token's logits of a prompt batch and what follows: single tokens, then small batches.

    The mask holds from the first token on, so what follows looks back at masked keys and values.
    """
    with open_session(model, **{"n_ctx": 512, **settings}) as session:
        if mask is not None:
            session.set_mask(mask)
        rest = tokens[prompt:]
        half = len(rest) // 2
        return np.concatenate(
            [
                step(session, tokens[:prompt]),
                decode(session, rest[:half], [1]),
                decode(session, rest[half:], [2, 3, 5, 8]),
            ]
        )


def assert_same_bits(one: Logits, other: Logits) -> None:
    assert one.shape == other.shape
    assert np.isfinite(one).all()
    different = one.view(np.uint32) != other.view(np.uint32)
    rows = different.reshape(len(different), -1).any(axis=1)
    assert not rows.any(), (
        f"{rows.sum()} of {len(rows)} rows differ, first {rows.argmax()},"
        f" by up to {np.abs(one - other).max():.3g}"
    )


def assert_undisturbed(
    model: Model,
    tokens: Sequence[int],
    prompt: int,
    between: Callable[[Session], None],
    **settings: Any,
) -> None:
    """What runs before each one-token step after a prompt leaves the steps' bits as they are."""
    rows: dict[bool, list[Logits]] = {True: [], False: []}
    for disturbed, found in rows.items():
        with open_session(model, **settings) as session:
            session.read(tokens[:prompt])
            for token in tokens[prompt:]:
                if disturbed:
                    between(session)
                found.append(step(session, [token]))
    assert_same_bits(np.concatenate(rows[True]), np.concatenate(rows[False]))
