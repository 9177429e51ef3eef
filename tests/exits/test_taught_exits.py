"""The file of taught exits: restored exactly, checked on the way in."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest

from edge_conflayers.errors import BadInput
from edge_conflayers.exits.taught_exits import TaughtExits, exit_layers

N_LAYER, N_EMBD, N_VOCAB = 8, 4, 50


def exits() -> TaughtExits:
    rng = np.random.default_rng(0)
    return TaughtExits(
        (2, 4, 6),
        rng.normal(size=(3, N_EMBD)).astype(np.float32),
        rng.normal(size=(3, N_EMBD, N_EMBD)).astype(np.float16).astype(np.float32),
        Counter({7: 3, 49: 1}),
        rng.exponential(size=(3, 9)).astype(np.float32),
        rng.uniform(size=(3, 9)) < 0.5,
    )


def restored(data: bytes) -> TaughtExits:
    return TaughtExits.from_bytes(data, N_LAYER, N_EMBD, N_VOCAB)


def test_what_is_saved_is_restored() -> None:
    one, other = exits(), restored(exits().to_bytes())
    assert other.layers == one.layers and other.written == one.written
    for name in ("norms", "weights", "entropies", "right"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert other.thresholds(0.7) == one.thresholds(0.7)


@pytest.mark.parametrize(
    "changed",
    [
        {"layers": [0, 4, 6]},
        {"layers": [2, 4, 8]},
        {"layers": [4, 2, 6]},
        {"layers": [2, 2, 6]},
        {"layers": []},
        {"layers": [[2], [4], [6]]},
        {"norms": np.full((3, N_EMBD), np.nan)},
        {"norms": np.ones((2, N_EMBD))},
        {"weights": np.ones((3, N_EMBD, N_EMBD + 1))},
        {"weights": np.full((3, N_EMBD, N_EMBD), np.inf)},
        {"tokens": [7, N_VOCAB]},
        {"counts": [1, 0]},
        {"counts": [1]},
        {"entropies": np.full((3, 9), -1.0)},
        {"entropies": np.full((3, 9), np.nan)},
        {"entropies": np.ones((2, 9))},
        {"right": np.ones((3, 8))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_models_are_refused(changed: dict[str, Any]) -> None:
    with np.load(io.BytesIO(exits().to_bytes())) as arrays:
        fields = {**arrays, **{name: np.array(value) for name, value in changed.items()}}
    file = io.BytesIO()
    np.savez(file, **fields)
    with pytest.raises(BadInput, match="tune --exits"):
        restored(file.getvalue())


def test_what_is_damaged_is_refused() -> None:
    data = exits().to_bytes()
    for broken in (b"", b"PK", data[:-30], data[: len(data) // 2], b"x" * 100):
        with pytest.raises(BadInput, match="tune --exits"):
            restored(broken)
    with np.load(io.BytesIO(data)) as arrays:
        for name in arrays:
            file = io.BytesIO()
            np.savez(file, **{each: arrays[each] for each in arrays if each != name})
            with pytest.raises(BadInput, match="tune --exits"):
                restored(file.getvalue())


def test_exits_are_at_the_quarters() -> None:
    assert exit_layers(24) == (6, 12, 18)
    assert exit_layers(30) == (8, 15, 22)
    assert exit_layers(3) == (1, 2)
    assert exit_layers(2) == (1,)
    with pytest.raises(BadInput, match="no exits"):
        exit_layers(1)
