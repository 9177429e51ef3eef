"""Every pre-tokenizer of the table against llama.cpp's of the same name.

The vocabularies are made up so that nearly every two ways to split a text give different tokens.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_tokenizer import LlamaTokenizer
from tokenizer_corpus import corpus
from vocabularies import CONTROL, USER_DEFINED, pairs, write_bpe

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.pretokenizers import PRE_TOKENIZERS, pre_tokenizer
from edge_conflayers.onnx.token_table import read_token_table
from edge_conflayers.onnx.tokenizer import build_tokenizer

NAMES = tuple(PRE_TOKENIZERS)
# One name of each row
DIFFERENT = tuple({row: name for name, row in reversed(PRE_TOKENIZERS.items())}.values())
# No merges lead to these: only vocabularies that take whole words have them.
WORDS = ("Hello", "ĠHello", "ĠThe", "123", "ĠĠĠĠ", "caf\u00c3\u00a9")


def assert_same(path: Path, texts: list[str]) -> None:
    built = build_tokenizer(read_token_table(path))
    with LlamaTokenizer(path) as llama:
        for special in (False, True):
            built.encode_special_tokens = not special
            for text in texts:
                assert built.encode(text).ids == llama.encode(text, special=special), ascii(text)


@pytest.mark.parametrize("name", DIFFERENT)
def test_splits_as_llama_cpp_does(name: str, tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "bpe.gguf", name, pairs(20_000), words=WORDS)
    texts = corpus((CONTROL, USER_DEFINED), n=1000)
    assert_same(path, [*texts[::3], "Hello", " Hello The 123    caf\u00e9"])


@pytest.mark.long
@pytest.mark.parametrize("name", DIFFERENT)
def test_splits_as_llama_cpp_does_with_all_pairs(name: str, tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "bpe.gguf", name, pairs(), words=WORDS)
    assert_same(path, corpus((CONTROL, USER_DEFINED)))


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "bpe.gguf", name, pairs(3000), words=WORDS)
    assert_same(path, corpus((CONTROL, USER_DEFINED), n=1000)[::25])


def test_without_a_name_is_the_default(tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "bpe.gguf", None, pairs(3000))
    assert_same(path, corpus(n=1000)[::25])


def test_the_rows_differ(tmp_path: Path) -> None:
    """If two rows were always the same, these tests could not tell them apart."""
    texts = corpus((CONTROL, USER_DEFINED))
    found: dict[tuple[tuple[int, ...], ...], str] = {}
    for name in DIFFERENT:
        path = write_bpe(tmp_path / f"{name}.gguf", name, pairs(8000), words=WORDS)
        built = build_tokenizer(read_token_table(path))
        tokens = tuple(tuple(built.encode(text, add_special_tokens=False).ids) for text in texts)
        assert tokens not in found, (name, found[tokens])
        found[tokens] = name


@pytest.mark.parametrize("name", ["kimi-k2", "no-such-name"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' is unknown"):
        pre_tokenizer(name)
