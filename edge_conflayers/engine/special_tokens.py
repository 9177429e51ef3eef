"""A vocabulary's tokens that are not text: which there are, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_conflayers.engine.native import llama
from edge_conflayers.engine.vocabulary import Vocabulary

UNKNOWN: int = llama.LLAMA_TOKEN_ATTR_UNKNOWN
CONTROL: int = llama.LLAMA_TOKEN_ATTR_CONTROL
USER_DEFINED: int = llama.LLAMA_TOKEN_ATTR_USER_DEFINED
LSTRIP: int = llama.LLAMA_TOKEN_ATTR_LSTRIP
RSTRIP: int = llama.LLAMA_TOKEN_ATTR_RSTRIP
_SPACE = " \t\n\v\f\r"


@dataclass(frozen=True)
class SpecialToken:
    """A control token (or the one for unknown text), and the name that stands for it in text."""

    token: int
    name: str
    attributes: int

    def extended(self, text: str, begin: int, end: int) -> tuple[int, int]:
        """[begin, end) of its name in a text, with the white space that it takes with it."""
        if self.attributes & LSTRIP:
            begin = len(text[:begin].rstrip(_SPACE))
        if self.attributes & RSTRIP:
            end = len(text) - len(text[end:].lstrip(_SPACE))
        return begin, end


class SpecialTokens:
    """The special tokens of a model's vocabulary.

    Attributes:
        bos, eos: tokens of a text's begin and end; None without.
        adds_bos: whether a text is to begin with ``bos``.
    """

    def __init__(self, model: Vocabulary) -> None:
        self._vocab = model.vocab
        self._n_vocab = model.n_vocab
        self.bos = self._known(llama.llama_vocab_bos(self._vocab))
        self.eos = self._known(llama.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(llama.llama_vocab_get_add_bos(self._vocab))

    @staticmethod
    def _known(token: int) -> int | None:
        return token if token >= 0 else None

    def name(self, token: int | None) -> str:
        """What stands for a token in text; empty for None."""
        if token is None:
            return ""
        name: bytes = llama.llama_vocab_get_text(self._vocab, token)
        return name.decode("utf-8", errors="replace")

    def is_control(self, token: int) -> bool:
        """Whether a token is parsed only where special tokens are."""
        return bool(self._attributes(token) & (CONTROL | UNKNOWN))

    def is_user_defined(self, token: int) -> bool:
        """Whether llama.cpp parses a token's name wherever it stands."""
        return bool(self._attributes(token) & USER_DEFINED)

    def _attributes(self, token: int) -> int:
        return int(llama.llama_vocab_get_attr(self._vocab, token))

    def control(self) -> Iterator[SpecialToken]:
        """All control tokens. Looks at the whole vocabulary: a tenth of a second if it is large."""
        for token in range(self._n_vocab):
            attributes = self._attributes(token)
            if attributes & (CONTROL | UNKNOWN) and (name := self.name(token)):
                yield SpecialToken(token, name, attributes)
