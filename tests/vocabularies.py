"""GGUF files that hold a made-up vocabulary and nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
from tokenizers import pre_tokenizers

BYTES = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
"""The letters that byte-level vocabularies write bytes as."""

CONTROL, USER_DEFINED = "<|end_of_it|>", "<|mine|>"
_NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 1, 3, 4, 6  # gguf.TokenType


def pairs(n: int | None = None) -> list[str]:
    """Merges of two bytes, shuffled: all 65,536, or the first ``n``. With all of them, hardly two
    ways to split a text give the same tokens."""
    found = [f"{left} {right}" for left in BYTES for right in BYTES]
    random.Random(7).shuffle(found)
    return found[:n]


def write_bpe(
    path: Path,
    pre: str | None,
    merges: Sequence[str],
    *,
    words: Sequence[str] = (),
    without: str = "",
    **extra: Any,
) -> Path:
    """Writes a byte-level BPE vocabulary.

    Args:
        pre: the name of its pre-tokenizer; None to name none.
        words: tokens that no merges lead to, as byte-level vocabularies write them.
        without: the letters of bytes that have no token.
        extra: other keys of ``tokenizer.ggml``.
    """
    letters = [letter for letter in BYTES if letter not in without]
    tokens = dict.fromkeys((*letters, *(merge.replace(" ", "") for merge in merges), *words))
    writer = _writer(path, "gpt2", [*tokens, CONTROL, USER_DEFINED], extra)
    writer.add_token_types([_NORMAL] * len(tokens) + [_CONTROL, _USER_DEFINED])
    writer.add_token_merges(merges)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_bos_token_id(len(tokens))
    writer.add_eos_token_id(len(tokens))
    return _close(writer, path)


def write_sentence_piece(path: Path, scored: Sequence[tuple[str, float]], **extra: Any) -> Path:
    """Writes a SentencePiece vocabulary of these tokens, a token for each byte, and special ones.

    Args:
        extra: other keys of ``tokenizer.ggml``.
    """
    special = [("<unk>", 2), ("<s>", _CONTROL), ("</s>", _CONTROL), (USER_DEFINED, _USER_DEFINED)]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    names = [*(name for name, _ in special), *bytes_, *(name for name, _ in scored)]
    writer = _writer(path, "llama", names, extra)
    writer.add_token_types(
        [*(kind for _, kind in special), *[_BYTE] * 256, *[_NORMAL] * len(scored)]
    )
    writer.add_token_scores([0.0] * (len(special) + 256) + [score for _, score in scored])
    return _close(writer, path)


def _writer(path: Path, kind: str, tokens: Sequence[str], extra: dict[str, Any]) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    for key, value in extra.items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add(f"tokenizer.ggml.{key}", value)
    return writer


def _close(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
