"""A GGUF model: weights, vocabulary, metadata."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edge_conflayers.engine import aborts, binding, native
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.model_checks import check_file
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.limits import MOST_INT32, check_number

_NO_TEXT = 1 << 0 | 1 << 1 | 1 << 3  # llama.h's LLAMA_TOKEN_ATTR_UNKNOWN, _UNUSED and _CONTROL

aborts.install(Path(native.LIBRARY._name).parent)


class Model(Closing):
    """A loaded GGUF model. Close it, or use it in a ``with`` statement.

    Args:
        path: the .gguf file (of a split model: its first part).
        gpu_layers: how many layers go to a GPU, if the library was built for one; -1 for all.
        use_mmap: map the file instead of reading it.
        kernels: this model's CPU kernels, whatever other models use. "ecl": ours where this CPU has
            one for the weights' format. "upstream": a step that verifies a draft runs token by
            token where bits would depend on the batch. "upstream-as-is": they may depend on it.
            None: what the environment variable ECL_KERNELS says, or else "ecl".

    Attributes:
        kernels: the CPU kernels, as above.

    Raises:
        BadInput: no such kernels, or not a GGUF file, damaged, or not a language model that
            llama.cpp knows.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        gpu_layers: int = 0,
        use_mmap: bool = True,
        kernels: KernelChoice | None = None,
    ) -> None:
        check_number("gpu-layers (-ngl)", gpu_layers, -1, MOST_INT32, whole=True)
        self.path = Path(path)
        self.kernels: KernelChoice = kernels or binding.default_kernels()
        self.gpu_layers = gpu_layers
        self._handle: Any = None
        check_file(self.path)

        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if not use_mmap:
            params.load_mode = 0
        native.log.recent.clear()
        with binding.loading_for(self.kernels):
            self._handle = llama.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self._handle:
            why = native.log.first_error() or "llama.cpp does not say why"
            raise BadInput(
                f"{self.path} cannot be loaded: {why}; use an undamaged GGUF language model"
            )
        self.vocab: Any = llama.llama_model_get_vocab(self._handle)
        self.metadata = self._read_metadata()
        self.n_layer: int = llama.llama_model_n_layer(self._handle)
        self.n_embd: int = llama.llama_model_n_embd(self._handle)
        self.n_vocab: int = llama.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = llama.llama_model_n_ctx_train(self._handle)
        self.architecture = self.metadata.get("general.architecture", "unknown")
        try:
            self._check_language_model()
        except BadInput:
            self.close()
            raise

    def _check_language_model(self) -> None:
        causal = self.metadata.get(f"{self.architecture}.attention.causal", "true")
        if (
            self.n_vocab == 0
            or llama.llama_vocab_type(self.vocab) == 0
            or causal == "false"
            or not llama.llama_model_has_decoder(self._handle)
        ):
            raise BadInput(
                f"{self.path} holds no text-generating language model"
                f" (architecture '{self.architecture}'); choose one that does"
            )
        if llama.llama_model_has_encoder(self._handle):
            raise BadInput(
                f"{self.path} is an encoder-decoder model ('{self.architecture}');"
                " only decoder-only models can be run"
            )

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer.

        Raises:
            EdgeConflayersError: the model is closed.
        """
        if self._handle is None:
            raise EdgeConflayersError("the model is closed; load it again")
        return self._handle

    @property
    def on_gpu(self) -> bool:
        """Whether layers of it are to be on a GPU, or on what the library takes for one."""
        return self.gpu_layers != 0 and bool(llama.llama_supports_gpu_offload())

    @property
    def forgets(self) -> bool:
        """Whether its memory can be rolled back: not where it has recurrent layers."""
        return not (
            llama.llama_model_is_recurrent(self.handle) or llama.llama_model_is_hybrid(self.handle)
        )

    @property
    def description(self) -> str:
        """llama.cpp's one-line description, such as "qwen2 1.5B Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(128)
        llama.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

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
        """Frees the weights; its sessions must be closed before."""
        if self._handle is not None:
            llama.llama_model_free(self._handle)
            self._handle = None
