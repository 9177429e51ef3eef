"""Signatures of texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.layer_search.prompt_kinds import SIGNATURE_SIZE, signature, similarity


@given(st.text(max_size=200))
def test_any_text_has_a_signature(text: str) -> None:
    found = signature(text)
    assert found.shape == (SIGNATURE_SIZE,) and found.dtype == np.float32
    assert similarity(found, found) == pytest.approx(1, abs=1e-5)


def test_long_texts_are_looked_at_in_part() -> None:
    text = "one two three. " * 5000
    assert similarity(signature(text), signature(text[:20_000])) > 0.99
