"""A text whose iteration is ended early leaves a session that can be gone on with."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import Any

import pytest
from steps import Tiny

from edge_conflayers.decoding import plain
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput

PROMPT = list(range(10, 40))

# A recurrent state cannot be rolled back, and a sliding window only as far as it is kept.
MODELS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {}),
    ("mamba", {}, {}),
    ("gemma3", {"sliding_window": 8}, {"batch": 4, "max_outputs": 4}),
]


def written(model: Model, session: Session, prompt: list[int], n: int) -> list[int]:
    with closing(Sampler(model, SamplerSettings())) as sampler:
        text = generate(session, prompt, sampler, max_tokens=60)
        with closing(text):
            return list(islice(text, n))


@pytest.mark.parametrize(("arch", "settings", "opened"), MODELS)
@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_session_holds_what_was_handed_out(
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    settings: dict[str, Any],
    opened: dict[str, Any],
    n: int,
) -> None:
    monkeypatch.setattr(plain, "_MAX_SECONDS", 10.0)  # all of the text in one call
    model = tiny(arch, **settings)
    with Session(model, threads=1, **opened) as whole:
        text = written(model, whole, PROMPT, 60)
    with Session(model, threads=1, **opened) as session:
        first = written(model, session, PROMPT, n)
        assert first == text[:n]
        assert session.tokens == [*PROMPT, *first[:-1]]
        rest = written(model, session, first[-1:], 60 - n)
        assert first + rest == text
        assert session.tokens == [*PROMPT, *text[: len(first + rest) - 1]]


@pytest.mark.parametrize("held", [[], PROMPT])
def test_an_empty_prompt_is_refused(tiny: Tiny, held: list[int]) -> None:
    model = tiny("llama")
    with (
        Session(model, threads=1) as session,
        closing(Sampler(model, SamplerSettings())) as sampler,
    ):
        if held:
            session.step(held, outputs="none")  # whatever logits there are, they are stale
        with pytest.raises(BadInput, match="the prompt is empty") as error:
            next(generate(session, [], sampler))
        assert "\n" not in str(error.value)
        assert session.tokens == held
