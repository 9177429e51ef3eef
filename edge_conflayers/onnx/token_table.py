"""A vocabulary's tokens, as tokenizer.json and the configurations need them.

Which tokens are special, which end a text and whether a text begins with one, llama.cpp decides
from the file and from its own lists of names. It is asked, so that there is one answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_conflayers.engine.gguf_header import Header, read_header
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.special_tokens import CONTROL, LSTRIP, RSTRIP, UNKNOWN, USER_DEFINED
from edge_conflayers.engine.vocabulary import Vocabulary, vocabulary_only
from edge_conflayers.errors import BadInput

_NORMAL = llama.LLAMA_TOKEN_ATTR_NORMAL


@dataclass(frozen=True)
class NamedToken:
    """A token that is found in text by its name, before anything else is.

    Attributes:
        is_control: it is no text: a control token, or the one for unknown text.
        lstrip, rstrip: it takes the white space before it, after it, along.
    """

    token: int
    name: str
    is_control: bool
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class TokenTable:
    """The tokens of a vocabulary, and how text becomes tokens.

    Attributes:
        kind: ``tokenizer.ggml.model``: "gpt2" for BPE, "llama" for SentencePiece.
        pre: ``tokenizer.ggml.pre``, the name of its pre-tokenizer; empty if not said.
        tokens: the tokens' names; those without one are called as llama.cpp calls them.
        normal: for each token, whether it is ordinary text.
        scores: by token; empty without.
        merges: pairs of token names, "LEFT RIGHT", best first; empty without.
        special: tokens that are found in text by their name.
        bos, eos, pad, unknown: None without.
        ends: the tokens with which the model ends its text, ``eos`` first.
        adds_bos, adds_eos: whether a text gets them.
        adds_space: whether a space is put before a text (SentencePiece).
        chat_template: empty without.
    """

    kind: str
    pre: str
    tokens: tuple[str, ...]
    normal: tuple[bool, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    special: tuple[NamedToken, ...]
    bos: int | None
    eos: int | None
    pad: int | None
    unknown: int | None
    ends: tuple[int, ...]
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    chat_template: str

    def name(self, token: int | None) -> str | None:
        """A token's name; None for None."""
        return None if token is None else self.tokens[token]


def read_token_table(path: Path) -> TokenTable:
    """The tokens of a GGUF file.

    Raises:
        BadInput: not a GGUF file, or not one whose vocabulary llama.cpp can load.
    """
    header = read_header(path, whole=True)
    kind = header.text("tokenizer.ggml.model")
    names = header.strings.get("tokenizer.ggml.tokens", ())
    if not names:
        raise BadInput(f"{path} holds no vocabulary; use a GGUF language model")
    with Vocabulary(path, path, vocabulary_only()) as opened:
        vocab = opened.vocab
        attributes = [llama.llama_vocab_get_attr(vocab, i) for i in range(len(names))]
        ends = [i for i in range(len(names)) if llama.llama_vocab_is_eog(vocab, i)]
        bos, eos, pad = (
            _known(ask(vocab), names)
            for ask in (llama.llama_vocab_bos, llama.llama_vocab_eos, llama.llama_vocab_pad)
        )
        adds_bos = bos is not None and bool(llama.llama_vocab_get_add_bos(vocab))
        adds_eos = eos is not None and bool(llama.llama_vocab_get_add_eos(vocab))
    tokens = tuple(name or f"[EMPTY_{i}]" for i, name in enumerate(names))
    return TokenTable(
        kind=kind,
        pre=header.text("tokenizer.ggml.pre"),
        tokens=tokens,
        normal=tuple(bool(each & _NORMAL) for each in attributes),
        scores=_scores(header),
        merges=header.strings.get("tokenizer.ggml.merges", ()),
        special=tuple(_special(tokens, attributes)),
        bos=bos,
        eos=eos,
        pad=pad,
        unknown=_known(header.values.get("tokenizer.ggml.unknown_token_id"), names),
        ends=tuple(sorted(ends, key=lambda token: (token != eos, token))),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        adds_space=kind == "llama"
        and bool(header.values.get("tokenizer.ggml.add_space_prefix", True)),
        chat_template=header.text("tokenizer.chat_template"),
    )


def _known(token: object, names: tuple[str, ...]) -> int | None:
    return token if isinstance(token, int) and 0 <= token < len(names) else None


def _scores(header: Header) -> tuple[float, ...]:
    scores = header.values.get("tokenizer.ggml.scores")
    return tuple(map(float, scores)) if isinstance(scores, tuple) else ()


def _special(tokens: tuple[str, ...], attributes: list[int]) -> Iterator[NamedToken]:
    for token, (name, has) in enumerate(zip(tokens, attributes, strict=True)):
        if has & (UNKNOWN | CONTROL | USER_DEFINED):
            yield NamedToken(
                token,
                name,
                is_control=bool(has & (UNKNOWN | CONTROL)),
                lstrip=bool(has & LSTRIP),
                rstrip=bool(has & RSTRIP),
            )
