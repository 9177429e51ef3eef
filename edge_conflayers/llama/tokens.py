"""What ``llama_cpp.Llama`` tells of a model and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from edge_conflayers.engine.native import binding_module, llama
from edge_conflayers.engine.vocabulary import Vocabulary


class LlamaTokens:
    """The methods about tokens and sizes."""

    model_path: str
    _vocabulary: Vocabulary
    _n_ctx: int

    @property
    def metadata(self) -> dict[str, str]:
        """What the model's file says of itself."""
        return self._vocabulary.metadata

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Tokens of a text.

        Args:
            text: UTF-8.
            add_bos: add what the model wants at the start.
            special: let the text name special tokens.
        """
        return self._vocabulary.tokenize(
            text.decode("utf-8", errors="ignore"), add_special=add_bos, parse_special=special
        )

    def detokenize(
        self,
        tokens: Sequence[int],
        prev_tokens: Sequence[int] | None = None,
        special: bool = False,
    ) -> bytes:
        """The bytes of tokens.

        Args:
            prev_tokens: taken as llama-cpp-python takes them, and of no effect.
            special: whether special tokens' names are part of it.
        """
        text = b"".join(self._vocabulary.piece(token, special=special) for token in tokens)
        begins = bool(tokens) and tokens[0] == self.token_bos()
        return text[1:] if begins and text[:1] == b" " else text

    @property
    def model(self) -> Any:
        """llama.cpp's own pointer to the model, for functions that ask about it."""
        return self._vocabulary.handle

    @property
    def _model(self) -> Any:
        """llama-cpp-python's own class for it; nothing is freed with the object."""
        found: Any = object.__new__(binding_module("_internals").LlamaModel)
        found.model, found.vocab = self.model, self._vocabulary.vocab
        found.path_model = self.model_path
        found.sampler, found.custom_samplers, found._exit_stack = None, [], ExitStack()
        return found

    def tokenizer(self) -> Any:
        """llama-cpp-python's ``LlamaTokenizer`` of this model."""
        return binding_module("llama_tokenizer").LlamaTokenizer(self)

    @property
    def tokenizer_(self) -> Any:
        """The same."""
        return self.tokenizer()

    def n_ctx(self) -> int:
        """Tokens of the context."""
        return self._n_ctx

    def n_embd(self) -> int:
        """Width of the hidden states."""
        return int(llama.llama_model_n_embd(self._vocabulary.handle))

    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self._vocabulary.n_vocab

    def token_eos(self) -> int:
        """The token that ends a text; -1 for none."""
        return int(llama.llama_vocab_eos(self._vocabulary.vocab))

    def token_bos(self) -> int:
        """The token that begins a text; -1 for none."""
        return int(llama.llama_vocab_bos(self._vocabulary.vocab))

    def token_nl(self) -> int:
        """The token of a line's end; -1 for none."""
        return int(llama.llama_vocab_nl(self._vocabulary.vocab))
