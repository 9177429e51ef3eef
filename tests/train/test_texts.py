"""Texts in batches, and texts of the user's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import Tiny

from edge_conflayers.errors import BadInput
from edge_conflayers.train.own_texts import own_texts
from edge_conflayers.train.texts import TrainingText, make_batch, one_pass, split
from edge_conflayers.train.user_texts import user_texts


@st.composite
def training_texts(draw: st.DrawFn) -> TrainingText:
    tokens = draw(st.lists(st.integers(1, 99), min_size=2, max_size=12))
    return TrainingText(tokens, draw(st.integers(1, len(tokens) - 1)))


@given(st.lists(training_texts(), min_size=1, max_size=12), st.integers(8, 60), st.integers(0, 9))
def test_a_pass_predicts_every_token_once(texts: list[TrainingText], size: int, seed: int) -> None:
    seen = []
    for batch in one_pass(texts, size, np.random.default_rng(seed)):
        n, length = batch.tokens.shape
        assert n == 1 or n * length <= size
        for text, position, target in zip(batch.text, batch.position, batch.target, strict=True):
            assert batch.tokens[text, position + 1] == target
            before = batch.tokens[text, : position + 1].tolist()
            seen.append((*before, int(target)))
    wanted = [
        tuple(each.tokens[: at + 1]) for each in texts for at in range(each.begin, len(each.tokens))
    ]
    assert sorted(seen) == sorted(wanted)


@given(st.integers(2, 100), st.integers(1, 500))
def test_a_split_keeps_all_texts_apart(n: int, most: int) -> None:
    texts = [TrainingText([i, i, i]) for i in range(n)]
    trained, tests = split(texts, most)
    assert trained and tests
    assert sorted(each.tokens[0] for each in trained + tests) == list(range(n))
    assert len(tests) <= max(1, n // 16, 1) and (len(tests) - 1) * 3 < most


def test_a_batch_is_padded_at_the_end() -> None:
    batch = make_batch([TrainingText([5, 6, 7], 2), TrainingText([8, 9])])
    assert batch.tokens.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.text.tolist() == [0, 1]
    assert batch.position.tolist() == [1, 0]
    assert batch.target.tolist() == [7, 9]


def test_texts_of_a_folder(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("def mean(values):\n    return sum(values)\n")
    (tmp_path / "b.txt").write_text("the first of two texts\n")
    (tmp_path / "c.txt").write_text("no")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "latin.txt").write_bytes("Prüfung einer Datei".encode("latin-1"))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("hidden files are left out, this one too")
    texts = [model.text(each.tokens[1:]).strip() for each in user_texts(model, tmp_path, 512)]
    assert sorted(texts) == ["def mean(values):\n    return sum(values)", "the first of two texts"]


def test_long_texts_are_cut(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    file = tmp_path / "a.txt"
    file.write_text("the cat sat on the mat and " * 30)
    texts = user_texts(model, file, 40)
    assert all(len(each.tokens) == 40 for each in texts[:-1])
    tokens = model.tokenize(file.read_text())
    found = [token for each in texts for token in each.tokens]
    assert found == tokens[: len(found)] and len(tokens) - len(found) < 8  # too few for a text


def test_a_text_of_too_few_words_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no")
    with pytest.raises(BadInput, match="too little text"):
        user_texts(tiny("llama"), tmp_path, 512)


def test_a_model_answers_prompts_and_everyday_tasks(tiny: Tiny) -> None:
    model = tiny("llama")
    prompt = model.tokenize("the cat sat on the")
    found = []
    texts = own_texts(model, [prompt], longest=512, threads=1, seed=3)
    for text in texts:
        found.append(text)
        if len(found) == 40:
            break
    texts.close()
    answers = [each for each in found if each.tokens[: each.begin] == prompt]
    tasks = [each for each in found if each not in answers]
    assert answers and tasks
    assert all(each.begin < len(each.tokens) <= 512 for each in found)
    assert len({tuple(each.tokens) for each in answers}) > 1
