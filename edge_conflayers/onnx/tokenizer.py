"""A GGUF file's vocabulary as tokenizer.json, which ONNX Runtime GenAI and transformers.js read.

Equal to llama.cpp's tokenizer: tests/onnx/test_tokenizer.py compares them over a corpus.
"""

from __future__ import annotations

from itertools import groupby

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.pretokenizers import pre_tokenizer
from edge_conflayers.onnx.token_table import TokenTable

_SPACE = "\u2581"  # SentencePiece's
_BYTES_END = 256
_ASCII_END = 128
# Bytes that are never in UTF-8, and those that begin characters from U+40000 to U+BFFFF: none of
# these is assigned.
_IN_NO_TEXT = frozenset((0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, _BYTES_END)))


def _letters() -> tuple[str, ...]:
    """What byte-level vocabularies write each byte as: itself where it is a visible character of
    Latin-1, else a letter from U+0100 on."""
    visible = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, _BYTES_END))
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in visible else next(others)) for byte in range(_BYTES_END))


_LETTERS = _letters()


def check_tokenizer(vocabulary: TokenTable) -> None:
    """Refuses a vocabulary that no tokenizer.json here stands for.

    Raises:
        BadInput: its kind or its pre-tokenizer is not known here, or it is not whole.
    """
    if vocabulary.kind == "gpt2":
        pre_tokenizer(vocabulary.pre)
        if not vocabulary.merges:
            raise BadInput("the vocabulary has no merges; use an undamaged GGUF file")
    elif vocabulary.kind == "llama":
        missing = {f"<0x{byte:02X}>" for byte in range(256)} - set(vocabulary.tokens)
        if missing:
            raise BadInput(
                f"the vocabulary has no token for the byte {min(missing)};"
                " run the GGUF file itself, or export another model"
            )
        if len(vocabulary.scores) < len(vocabulary.tokens):
            raise BadInput("the vocabulary has no scores; use an undamaged GGUF file")
    else:
        raise BadInput(
            f"vocabularies of the kind '{vocabulary.kind}' cannot be exported, only 'gpt2' (BPE)"
            " and 'llama' (SentencePiece); run the GGUF file itself, or export another model"
        )
    if any("\ud800" <= char <= "\udfff" for name in vocabulary.tokens for char in name):
        raise BadInput("the vocabulary holds a token that is not UTF-8; export another model")


def build_tokenizer(vocabulary: TokenTable) -> Tokenizer:
    """The tokenizer of a vocabulary.

    Raises:
        BadInput: as ``check_tokenizer``.
    """
    check_tokenizer(vocabulary)
    built = _byte_level(vocabulary) if vocabulary.kind == "gpt2" else _sentence_piece(vocabulary)
    for is_control, run in groupby(vocabulary.special, key=lambda each: each.is_control):
        tokens = [
            AddedToken(
                each.name,
                lstrip=each.lstrip,
                rstrip=each.rstrip,
                normalized=False,
                special=is_control,
            )
            for each in run
        ]
        built.add_tokens(tokens)
    begin = [_piece(vocabulary, vocabulary.bos)] if vocabulary.adds_bos else []
    end = [_piece(vocabulary, vocabulary.eos)] if vocabulary.adds_eos else []
    if begin or end:
        built.post_processor = processors.TemplateProcessing(
            single=[*begin, "$A", *end],
            pair=[*begin, "$A", *end, *(f"{each}:1" for each in begin), "$B:1", *end],
            special_tokens=[
                (str(vocabulary.name(token)), token)
                for token in (vocabulary.bos, vocabulary.eos)
                if token is not None
            ],
        )
    return built


def _piece(vocabulary: TokenTable, token: int | None) -> str:
    return str(vocabulary.name(token))


def _byte_level(vocabulary: TokenTable) -> Tokenizer:
    """BPE over bytes, each of them written as a letter."""
    kind = pre_tokenizer(vocabulary.pre)
    ids = {name: token for token, name in enumerate(vocabulary.tokens)}
    built = Tokenizer(
        models.BPE(vocab=ids, merges=_listed_merges(vocabulary), ignore_merges=kind.ignore_merges)
    )
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(each), behavior="isolated") for each in kind.expressions
    ]
    steps += _without_missing_bytes(set(ids))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    built.pre_tokenizer = pre_tokenizers.Sequence(steps)
    built.decoder = decoders.ByteLevel()
    return built


def _without_missing_bytes(names: set[str]) -> list[pre_tokenizers.PreTokenizer]:
    """Leaves out bytes for which the vocabulary has no token, as llama.cpp does: nothing is merged
    over them.

    Comes before bytes are written as letters: ONNX Runtime GenAI takes no split after that.

    Raises:
        BadInput: it has none for a byte that is a part of characters.
    """
    missing = {byte for byte, letter in enumerate(_LETTERS) if letter not in names} - _IN_NO_TEXT
    if missing and max(missing) >= _ASCII_END:
        raise BadInput(
            f"the vocabulary has no token for the byte {max(missing):#04x};"
            " run the GGUF file itself, or export another model"
        )
    if not missing:
        return []
    characters = "".join(f"\\x{byte:02x}" for byte in sorted(missing))
    return [pre_tokenizers.Split(Regex(f"[{characters}]"), behavior="removed")]


def _listed_merges(vocabulary: TokenTable) -> list[tuple[str, str]]:
    """The merges of a BPE vocabulary, best first."""
    known = set(vocabulary.tokens)
    merges: dict[tuple[str, str], None] = {}
    for merge in vocabulary.merges:
        left, _, right = merge.partition(" ")
        if left not in known or right not in known or left + right not in known:
            raise BadInput(
                f"the vocabulary merges {merge!r}, but has no such token;"
                " run the GGUF file itself, or export another model"
            )
        merges[left, right] = None
    return list(merges)


def _sentence_piece(vocabulary: TokenTable) -> Tokenizer:
    """BPE over characters, by scores; characters that are no tokens become bytes."""
    ids = {name: token for token, name in enumerate(vocabulary.tokens)}
    built = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=_scored_merges(vocabulary, ids),
            unk_token=vocabulary.name(vocabulary.unknown),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", _SPACE)]
    words: list[decoders.Decoder] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if vocabulary.adds_space:
        spaces.insert(0, normalizers.Prepend(_SPACE))
        words.append(decoders.Strip(" ", 1, 0))
    built.normalizer = normalizers.Sequence(spaces)
    built.decoder = decoders.Sequence(words)
    return built


def _scored_merges(vocabulary: TokenTable, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a token of two others, best first.

    llama.cpp merges the pair that makes the token with the best score; of equal scores, the
    leftmost. Merges are ranked by pair, not by score, so equal scores need an order that does the
    same: the longest token first, with the longest left part, so that a run (of spaces, say) grows
    from its left end.
    """
    for token, name in enumerate(vocabulary.tokens):
        if vocabulary.normal[token] and (char := next((c for c in name if c not in ids), None)):
            raise BadInput(
                f"the vocabulary has the token {name!r}, but none for {char!r} in it;"
                " run the GGUF file itself, or export another model"
            )
    order = sorted(ids, key=lambda name: (-vocabulary.scores[ids[name]], -len(name), ids[name]))
    return [
        (name[:cut], name[cut:])
        for name in order
        for cut in range(len(name) - 1, 0, -1)
        if name[:cut] in ids and name[cut:] in ids
    ]
