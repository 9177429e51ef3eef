"""Tokens from rows of logits: what llama.cpp's own sessions draw from the same."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from steps import Tiny, open_session, random_tokens
from test_identity import LETTERS, SAMPLERS

from edge_conflayers.engine import binding
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.onnx import rows
from edge_conflayers.onnx.rows import Row


class Alone:
    """The logits of a step, without its session."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def argmax(self, index: int) -> int:
        return rows.argmax(self._row)

    def draw(self, index: int, samplers: binding.Samplers) -> int:
        return rows.draw(self._row, samplers)


@pytest.mark.parametrize("kind", [*SAMPLERS.values(), {"logit_bias": {5: 90.0}}])
def test_a_row_is_drawn_from_as_a_step(tiny: Tiny, kind: dict[str, Any]) -> None:
    model = tiny("llama", layer_gain=0.3)
    settings = SamplerSettings(**{"logit_bias": LETTERS, **kind})
    with (
        open_session(model, n_ctx=128) as session,
        closing(Sampler(model, settings)) as one,
        closing(Sampler(model, settings)) as other,
    ):
        session.read(random_tokens(model, 9))
        for _ in range(40):
            row = session.logits().copy()
            token = one.sample(session, -1)
            assert other.sample(Alone(row), -1) == token
            session.step([token])


def test_the_likeliest_of_a_row(tiny: Tiny) -> None:
    model = tiny("llama")
    with open_session(model, n_ctx=64) as session:
        session.read(random_tokens(model, 9))
        row = session.logits().copy()
        assert rows.best(row) == session.best()
        assert rows.argmax(row) == session.argmax(-1) == int(row.argmax())
        for k in (0, 1, 7, 10_000):
            assert rows.top_k(row, k) == session.top_k(-1, k)


def test_equal_logits_and_none() -> None:
    row = np.zeros(300, dtype=np.float32)
    assert rows.argmax(row) == 0
    assert rows.top_k(row, 3)[0] == [0, 1, 2]
    row[[7, 200]] = 1.0
    assert rows.argmax(row) == 7
    assert rows.argmax(np.full(9, np.nan, dtype=np.float32)) == 0


def test_draws_that_cannot_be(tiny: Tiny) -> None:
    model = tiny("llama")
    row = np.zeros(model.n_vocab, dtype=np.float32)
    with pytest.raises(EdgeConflayersError, match="no token can be drawn"):
        rows.draw(row[:0], binding.Samplers(None, None))
    row[:] = -np.inf  # all that the grammar allows, too
    with closing(Sampler(model, SamplerSettings(grammar='root ::= "a"'))) as sampler:
        with pytest.raises(BadInput, match="allows no token"):
            sampler.sample(Alone(row), -1)
        row[3 + ord("a")] = 0.0
        assert model.text([sampler.sample(Alone(row), -1)]) == "a"
