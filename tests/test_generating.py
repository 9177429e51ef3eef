"""Load, generate and stream_generate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from steps import TinyPath, random_tokens

import edge_conflayers
from edge_conflayers import BadInput, SamplerSettings, generate, load, stream_generate
from edge_conflayers.text_generator import TextGenerator


@pytest.fixture
def model(tiny_path: TinyPath) -> Iterator[TextGenerator]:
    path = tiny_path("llama", n_layer=4, layer_gain=0.2)
    with load(path, method="lookup", threads=1, fresh=True) as found:
        yield found


def test_a_text_is_its_pieces(model: TextGenerator) -> None:
    pieces = list(stream_generate(model, "the the the", max_tokens=20))
    assert "".join(piece.text for piece in pieces) == generate(model, "the the the", max_tokens=20)
    assert len(pieces) == 21 and pieces[-1].finish_reason == "length"


def test_a_prompt_is_text_or_tokens(model: TextGenerator) -> None:
    tokens = model.model.tokenize("a b c")
    assert generate(model, tokens, max_tokens=8) == generate(model, "a b c", max_tokens=8)
    with pytest.raises(BadInput, match="prompt is empty"):
        generate(model, [])
    with pytest.raises(BadInput, match="no role"):
        generate(model, [{"content": "hello"}])


def test_settings_are_given_one_by_one_or_together(model: TextGenerator) -> None:
    options: dict[str, Any] = {"temperature": 1.2, "seed": 3}
    settings = SamplerSettings(**options)
    one = generate(model, "a", max_tokens=12, **options)
    assert one == generate(model, "a", max_tokens=12, sampling=settings)
    assert one != generate(model, "a", max_tokens=12)
    with pytest.raises(BadInput, match="not both"):
        generate(model, "a", sampling=settings, seed=3)
    with pytest.raises(BadInput, match="no setting 'temprature'"):
        generate(model, "a", temprature=1.0)


def test_a_loop_that_ends_ends_the_text(model: TextGenerator) -> None:
    prompt = random_tokens(model.model, 30)
    expected = generate(model, prompt, max_tokens=12)
    for piece in stream_generate(model, prompt, max_tokens=None):
        if piece.stats.tokens == 5:
            break
    assert generate(model, prompt, max_tokens=12) == expected


def test_what_means_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither a file nor a known model"):
        load("no-such-model")


def test_what_is_exported_can_be_had() -> None:
    for name in (*edge_conflayers._EXPORTS, "__version__"):
        assert getattr(edge_conflayers, name) is not None and name in dir(edge_conflayers)
    with pytest.raises(AttributeError):
        edge_conflayers.nothing  # noqa: B018
