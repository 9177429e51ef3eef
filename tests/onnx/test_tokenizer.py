"""tokenizer.json against llama.cpp's tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_tokenizer import LlamaTokenizer
from tokenizer_corpus import corpus
from tokenizers import Tokenizer
from vocabularies import BYTES, CONTROL, USER_DEFINED, pairs, write_bpe, write_sentence_piece

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models
from edge_conflayers.onnx.token_table import TokenTable, read_token_table
from edge_conflayers.onnx.tokenizer import build_tokenizer, check_tokenizer
from edge_conflayers.onnx.vocabulary_file import write_vocabulary_file

MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m")
SPACE = "\u2581"
SCORED = [
    (SPACE, -1.0), ("a", -2.0), ("b", -3.0), ("c", -4.0), ("ab", -5.0), ("bc", -4.5),
    (f"{SPACE}a", -6.0), ("abc", -7.0), (f"{SPACE}ab", -7.5), ("aa", -8.0), ("aaa", -8.0),
    ("aaaa", -8.0), (SPACE * 2, -9.0), (SPACE * 3, -9.0), (SPACE * 4, -9.0), ("cab", -4.5),
    ("<", -20.0), ("s", -21.0), (">", -22.0), ("<s", -23.0), ("é", -24.0), ("\n", -25.0),
]  # fmt: skip


@pytest.fixture(params=MODELS)
def model_path(request: pytest.FixtureRequest) -> Path:
    try:
        return models.resolve(request.param)
    except EdgeConflayersError as error:
        pytest.skip(f"{request.param} cannot be had here: {error}")


def assert_same(path: Path, built: Tokenizer, texts: list[str], *, strips: bool = False) -> None:
    """The same tokens, whether or not the text may name special ones, and the same text back.

    Args:
        strips: the space that was put before a text is taken away again.
    """
    with LlamaTokenizer(path) as llama:
        for special in (False, True):
            built.encode_special_tokens = not special
            for text in texts:
                assert built.encode(text).ids == llama.encode(text, special=special), ascii(text)
        for text in texts:
            tokens = llama.encode(text, special=True, add_special=False)
            wanted = llama.decode(tokens)
            assert built.decode(tokens) == wanted.removeprefix(" " if strips else ""), ascii(text)


@pytest.mark.model
def test_real_vocabularies(model_path: Path) -> None:
    vocabulary = read_token_table(model_path)
    names = [each.name for each in vocabulary.special]
    texts = corpus(names[:40] + names[-10:])
    assert len(texts) >= 1000
    saved = build_tokenizer(vocabulary).to_str()
    assert_same(model_path, Tokenizer.from_str(saved), texts)


@pytest.mark.model
def test_vocabulary_file_of_a_real_model(model_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "vocabulary.gguf"
    write_vocabulary_file(model_path, copy)
    assert read_token_table(copy) == read_token_table(model_path)
    with LlamaTokenizer(copy) as one, LlamaTokenizer(model_path) as other:
        for text in corpus()[::10]:
            tokens = other.encode(text, special=True)
            assert one.encode(text, special=True) == tokens
            assert one.decode(tokens) == other.decode(tokens)


@pytest.mark.parametrize("space", [{}, {"add_space_prefix": True}, {"add_space_prefix": False}])
@pytest.mark.parametrize("ends", [{}, {"add_bos_token": False}, {"add_eos_token": True}])
def test_sentence_piece(space: dict[str, Any], ends: dict[str, Any], tmp_path: Path) -> None:
    path = write_sentence_piece(tmp_path / "spm.gguf", SCORED, **space, **ends)
    texts = [
        *corpus(("<s>", "</s>", "<unk>", USER_DEFINED))[::4],
        *("a" * n for n in range(12)),
        *(" " * n for n in range(12)),
        *(" " * n + "ab" for n in range(12)),
        "abcab cab abc", f"{SPACE}{SPACE}", "<s", "<s>a<s> a", f"a{USER_DEFINED} a{USER_DEFINED}",
    ]  # fmt: skip
    vocabulary = read_token_table(path)
    assert vocabulary.adds_space is space.get("add_space_prefix", True)
    assert_same(path, build_tokenizer(vocabulary), texts, strips=vocabulary.adds_space)


@pytest.mark.parametrize("ends", [{}, {"add_bos_token": True}, {"add_eos_token": True}])
def test_byte_level(ends: dict[str, Any], tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "bpe.gguf", "qwen2", pairs(4000), **ends)
    texts = ["", "a", f"x {CONTROL} y{USER_DEFINED}z", *corpus()[::10]]
    assert_same(path, build_tokenizer(read_token_table(path)), texts)


def test_bytes_without_a_token_are_left_out_and_nothing_is_merged_over_them(
    tmp_path: Path,
) -> None:
    letter = "\u0104"  # 0x04
    merges = [each for each in pairs() if letter not in each]
    path = write_bpe(tmp_path / "bpe.gguf", "gpt-2", merges, without=letter)
    texts = ["a\x04b", "\x04", "+\x04+\x04\x04-", *corpus()[::10]]
    assert_same(path, build_tokenizer(read_token_table(path)), texts)


def vocabulary(**changes: Any) -> TokenTable:
    """A whole BPE vocabulary but for the changes."""
    return replace(
        TokenTable(
            kind="gpt2",
            pre="gpt-2",
            tokens=(*BYTES, "ab"),
            normal=(True,) * (len(BYTES) + 1),
            scores=(),
            merges=("a b",),
            special=(),
            bos=None,
            eos=None,
            pad=None,
            unknown=None,
            ends=(),
            adds_bos=False,
            adds_eos=False,
            adds_space=False,
            chat_template="",
        ),
        **changes,
    )


BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "bert"}, "kind 'bert'"),
        ({"kind": "t5"}, "kind 't5'"),
        ({"kind": ""}, "kind ''"),
        ({"pre": "made-up"}, "'made-up'"),
        ({"merges": ()}, "no merges"),
        ({"merges": ("a b", "b c")}, "'b c'"),
        ({"tokens": BYTES[:-1], "merges": ("a a",)}, "'a a'"),
        ({"tokens": tuple(b for b in (*BYTES, "ab") if b != "\u0122")}, "0x80"),
        ({"tokens": (*BYTES, "ab", "\udcff")}, "not UTF-8"),
        ({"kind": "llama", "tokens": BYTE_TOKENS[1:]}, "<0x00>"),
        ({"kind": "llama", "tokens": BYTE_TOKENS}, "no scores"),
        (
            {
                "kind": "llama",
                "tokens": (*BYTE_TOKENS, "a", "ab"),
                "normal": (False,) * 256 + (True,) * 2,
                "scores": (0.0,) * 258,
            },
            "none for 'b'",
        ),
    ],
)
def test_what_cannot_be_a_tokenizer_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        build_tokenizer(vocabulary(**changes))


def test_a_whole_vocabulary_is_taken() -> None:
    check_tokenizer(vocabulary())
    assert build_tokenizer(vocabulary()).encode("abab").tokens == ["ab", "ab"]
