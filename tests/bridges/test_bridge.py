"""Bridges' file."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.bridges.bridge import Bridge, Bridges
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import Prediction

PREDICTION = Prediction(1.25, 0.35, 6, 0.8, 3.5)
WRITTEN = Counter({5: 3, 9: 1})


def some(blocks: list[tuple[int, int]], n_embd: int, size: float = 1.0) -> Bridges:
    rng = np.random.default_rng(len(blocks))
    shape = (n_embd, 3 * n_embd + 1)
    maps = [Bridge(*each, (size * rng.normal(size=shape)).astype(np.float32)) for each in blocks]
    return Bridges(tuple(maps), PREDICTION, 4096, WRITTEN)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.floats(0.1, 100.0))
def test_a_file_holds_what_was_put_in(n_embd: int, n_blocks: int, size: float) -> None:
    """Weights within what 8 bits for 32 of them allow; a second time nothing is lost."""
    bridges = some([(3 * i, 3 * i + 2) for i in range(n_blocks)], n_embd, size)
    read = Bridges.from_bytes(bridges.to_bytes(), n_embd, 10, 100)
    assert read.blocks == bridges.blocks
    assert (read.prediction, read.vocabulary_size) == (PREDICTION, 4096)
    assert read.written == WRITTEN
    for one, other in zip(bridges.bridges, read.bridges, strict=True):
        assert other.weights == pytest.approx(one.weights, abs=5 * size / 127)
        assert np.array_equal(other.weights[:, -1], one.weights[:, -1])
    again = Bridges.from_bytes(read.to_bytes(), n_embd, 10, 100)
    for one, other in zip(read.bridges, again.bridges, strict=True):
        assert other.weights == pytest.approx(one.weights, rel=2e-3, abs=1e-9)


def test_the_mask_drops_what_they_replace() -> None:
    mask = some([(1, 3), (5, 6)], 4).mask
    assert mask.attention == mask.mlp == {1, 2, 5}


@pytest.mark.parametrize(
    ("blocks", "sizes"),
    [
        ([(1, 3)], (5, 10, 100)),  # another width
        ([(1, 10)], (4, 10, 100)),  # beyond the last layer
        ([(3, 3)], (4, 10, 100)),
        ([(1, 4), (4, 6)], (4, 10, 100)),  # they touch
        ([(5, 7), (1, 2)], (4, 10, 100)),
        ([], (4, 10, 100)),
        ([(1, 3)], (4, 10, 9)),  # a token beyond the vocabulary
    ],
    ids=str,
)
def test_those_of_another_model_are_refused(
    blocks: list[tuple[int, int]], sizes: tuple[int, int, int]
) -> None:
    with pytest.raises(BadInput):
        Bridges.from_bytes(some(blocks, 4).to_bytes(), *sizes)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    whole = some([(1, 3)], 4).to_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)):
        if damaged:
            damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        read = Bridges.from_bytes(bytes(damaged), 4, 10, 100)
    except BadInput:
        return
    assert np.isfinite(read.bridges[0].weights).all()


def test_numbers_that_are_none_are_refused() -> None:
    bridges = some([(1, 3)], 4)
    bridges.bridges[0].weights[2, -1] = np.nan
    with pytest.raises(BadInput):
        Bridges.from_bytes(bridges.to_bytes(), 4, 10, 100)
