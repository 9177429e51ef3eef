"""llama.cpp's own tokenizer of a GGUF file with or without weights."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.native import llama


class LlamaTokenizer(Closing):
    """Close it, or use it in a ``with`` statement."""

    def __init__(self, path: Path) -> None:
        params = llama.llama_model_default_params()
        params.vocab_only = True
        self._handle: Any = llama.llama_model_load_from_file(os.fsencode(path), params)
        assert self._handle, f"llama.cpp does not load the vocabulary of {path}"
        self._vocab: Any = llama.llama_model_get_vocab(self._handle)

    def encode(self, text: str, *, special: bool, add_special: bool = True) -> list[int]:
        """A text's tokens; ``special``: the text may name special tokens."""
        data = text.encode()
        room = 2 * len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        n = llama.llama_tokenize(self._vocab, data, len(data), buffer, room, add_special, special)
        assert n >= 0
        return list(buffer[:n])

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, without special ones."""
        pieces = []
        for token in tokens:
            buffer = ctypes.create_string_buffer(256)
            n = llama.llama_token_to_piece(self._vocab, token, buffer, 256, 0, False)
            assert n >= 0
            pieces.append(buffer.raw[:n])
        return b"".join(pieces).decode("utf-8", errors="replace")

    def close(self) -> None:
        if self._handle is not None:
            llama.llama_model_free(self._handle)
            self._handle = None
