"""llama.cpp's vocabulary of a model, and the metadata of its file: what every engine needs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edge_conflayers.engine import aborts, native
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput, EdgeConflayersError

_NO_TEXT: int = (
    llama.LLAMA_TOKEN_ATTR_UNKNOWN | llama.LLAMA_TOKEN_ATTR_UNUSED | llama.LLAMA_TOKEN_ATTR_CONTROL
)

aborts.install()


def vocabulary_only() -> Any:
    """Parameters for ``Vocabulary`` that load no weights."""
    params = llama.llama_model_default_params()
    params.vocab_only = True
    return params


class Vocabulary(Closing):
    """Turns text into tokens and back, and knows what the model's file says of itself.

    Args:
        path: what the user calls the model by.
        file: the .gguf file to load.
        params: llama.cpp's own structure of how to load it.

    Attributes:
        path: as given.
        vocab: llama.cpp's own pointer.
        n_vocab: tokens.
        metadata: of the file, values as text, by key.
        architecture: as llama.cpp calls it.

    Raises:
        BadInput: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path, file: Path, params: Any) -> None:
        self.path = path
        self._handle: Any = None
        native.log.recent.clear()
        self._handle = llama.llama_model_load_from_file(os.fsencode(file), params)
        if not self._handle:
            why = native.log.first_error() or "llama.cpp does not say why"
            raise BadInput(f"{file} cannot be loaded: {why}; use an undamaged GGUF language model")
        self.vocab: Any = llama.llama_model_get_vocab(self._handle)
        self.metadata = self._read_metadata()
        self.n_vocab: int = llama.llama_vocab_n_tokens(self.vocab)
        self.architecture = self.metadata.get("general.architecture", "unknown")

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer to the model.

        Raises:
            EdgeConflayersError: the model is closed.
        """
        if self._handle is None:
            raise EdgeConflayersError("the model is closed; load it again")
        return self._handle

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template in the file, if it has one."""
        return self.metadata.get("tokenizer.chat_template")

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Text to tokens.

        Args:
            add_special: add what the model wants at the start (and end), such as a BOS token.
            parse_special: let the text itself name special tokens, as chat templates do.

        Raises:
            BadInput: the text holds a half of a character (a lone surrogate).
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            raise BadInput(f"the text holds half a character ({half}); mend it") from None
        room = len(data) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            n = llama.llama_tokenize(
                self.vocab, data, len(data), buffer, room, add_special, parse_special
            )
            if n >= 0:
                return list(buffer[:n])
            room = -n

    def hyperparameter(self, key: str, default: int) -> int:
        """An integer of the architecture, such as "attention.head_count"; where layers differ, the
        largest."""
        values = self.metadata.get(f"{self.architecture}.{key}", "").strip("[]").split(",")
        return max((int(v) for v in values if v.strip().isdigit()), default=default)

    def repeated(self, text: str, n: int) -> list[int]:
        """The first ``n`` tokens of a text repeated for ever, for steps of which only the time or
        the bits matter."""
        return list(islice(cycle(self.tokenize(text)), n))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token adds to the text; one character may span several tokens."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = llama.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            room = -n

    def text(self, tokens: Iterable[int]) -> str:
        """Tokens to text; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.piece, tokens)).decode("utf-8", errors="replace")

    def ends_text(self, token: int) -> bool:
        """Whether the model ends its text with this token (end of text, of turn, ...)."""
        return bool(llama.llama_vocab_is_eog(self.vocab, token))

    def is_text(self, token: int) -> bool:
        """Whether a token can be part of a text: not a control token, unused or unknown."""
        return not llama.llama_vocab_get_attr(self.vocab, token) & _NO_TEXT

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that usually end a text and a turn."""
        ends = (llama.llama_vocab_eos(self.vocab), llama.llama_vocab_eot(self.vocab))
        return frozenset(token for token in ends if token >= 0)

    def _read_metadata(self) -> dict[str, str]:
        return {
            self._meta(llama.llama_model_meta_key_by_index, i): self._meta(
                llama.llama_model_meta_val_str_by_index, i
            )
            for i in range(llama.llama_model_meta_count(self._handle))
        }

    def _meta(self, read: Any, index: int) -> str:
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = read(self._handle, index, buffer, room)
            if n < room:
                return buffer.value.decode("utf-8", errors="replace")
            room = n + 1

    def close(self) -> None:
        """Frees it; a model's sessions must be closed before."""
        if self._handle is not None:
            llama.llama_model_free(self._handle)
            self._handle = None
