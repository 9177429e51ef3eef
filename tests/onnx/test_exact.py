"""Which steps of ONNX Runtime have equal bits, and what follows from that."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from onnx_folders import Opened
from steps import random_tokens

from edge_conflayers.engine.draft import Draft
from edge_conflayers.onnx import exact
from edge_conflayers.onnx.exact import Exactness, Plain, exactness
from edge_conflayers.onnx.model import OnnxModel
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.text_generator import TextGenerator

Tried = MutableMapping[Any, int]


@pytest.fixture
def model(opened: Opened) -> OnnxModel:
    return opened("llama", n_embd=128, quant="q8_0")


@pytest.mark.parametrize("plain", Plain)
def test_numbers_that_are_remembered(plain: Plain) -> None:
    for most in (1, 2, 16):
        assert Exactness.of_number(Exactness(most, plain).number) == Exactness(most, plain)


@pytest.mark.parametrize("number", [0, -5, 17, 31, 99, 305, 10**9])
def test_numbers_of_nothing(number: int) -> None:
    assert Exactness.of_number(number) == Exactness(1)


def test_it_is_tried_once(model: OnnxModel, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    first = exactness(model, 1)
    assert first.most > 1 and len(tried) == 1
    monkeypatch.setattr(exact, "_tried", lambda *_: pytest.fail("it was tried again"))
    assert exactness(model, 1) == first
    (setting,) = tried
    assert setting.kernels == model.arithmetic and setting.threads == 1
    assert str(model.path.resolve()) == setting.model


def test_a_session_without_a_text_is_left_alone(model: OnnxModel, tried: Tried) -> None:
    tokens = random_tokens(model, 12)
    with model.open_session(n_ctx=64, threads=1) as session:
        session.read(tokens)
        before = session.logits().copy()
        assert session.verifies_drafts
        assert (session.logits() == before).all() and session.tokens == tokens


@pytest.mark.parametrize("plain", Plain)
def test_each_way_of_plain_steps(
    model: OnnxModel, tried: Tried, monkeypatch: pytest.MonkeyPatch, plain: Plain
) -> None:
    """Plain steps and verifications agree where they were found to, whichever way it is."""
    found = exact._Trial(model, 1, 300).largest(250, plain)
    if found == 1:
        assert plain == Plain.AS_IT_IS
        pytest.skip("one token as it is has other bits here")
    monkeypatch.setattr(exact, "_tried", lambda *_: Exactness(found, plain))
    tokens = random_tokens(model, 40)
    with model.open_session(n_ctx=64, threads=1) as session:
        session.read(tokens[:20])
        rows = []
        for token in tokens[20:36]:
            session.step([token])
            rows.append(session.logits().copy())
        session.rollback(20)
        session.verify(tokens[20:21], Draft(tuple(tokens[21:36])))
        assert all((session.logits(i) == row).all() for i, row in enumerate(rows))


def write(folder: Path, method: str, store: Path) -> tuple[str, list[int], str]:
    with TextGenerator(
        folder, method=method, threads=1, n_ctx=256, profiles=ProfileStore(store)
    ) as writer:
        prompt = random_tokens(writer.model, 10) * 2
        session = writer.open(len(prompt), 40)
        why = "" if session.verifies_drafts else session.why_plain
        with closing(writer.generate(prompt, max_tokens=40)) as written:
            return writer.method_name, list(written), why


@pytest.mark.parametrize("broken", ["inexact", "dear"])
def test_drafts_that_cannot_pay_are_not_made(
    model: OnnxModel,
    tried: Tried,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    broken: str,
) -> None:
    if broken == "inexact":
        monkeypatch.setattr(exact._Trial, "largest", lambda *_: 1)
    else:
        monkeypatch.setattr(exact._Trial, "largest", lambda self, place, plain: 16 if plain else 1)
        monkeypatch.setattr(exact._Trial, "cost", lambda self, plain, place: 2.0)
    method, text, why = write(model.path, "lookup", tmp_path)
    assert method == "plain" and "decoding plainly" in why and "\n" not in why
    assert write(model.path, "plain", tmp_path)[1] == text
    with model.open_session(n_ctx=64, threads=1) as session:
        assert session.most_verified == 1 and session._exact.plain == Plain.AS_IT_IS


def test_sizes_that_agree_only_up_to_some(
    model: OnnxModel, tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exact._Trial.largest
    monkeypatch.setattr(
        exact._Trial, "largest", lambda self, place, plain: min(4, real(self, place, plain))
    )
    with model.open_session(n_ctx=64, threads=1) as session:
        assert session.most_verified == 4
