"""A GGUF model: weights, vocabulary, metadata."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from edge_conflayers.engine import binding
from edge_conflayers.engine.adapters import Adapters
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.build import kernel_choice
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model_checks import check_file
from edge_conflayers.engine.model_options import KV_TYPES, ModelOptions
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput
from edge_conflayers.limits import MOST_INT32, check_number

if TYPE_CHECKING:
    from edge_conflayers.engine.session import Session


class Model(LanguageModel):
    """A loaded GGUF model. Close it, or use it in a ``with`` statement.

    Args:
        path: the .gguf file (of a split model: its first part).
        gpu_layers: how many layers go to a GPU, if the library was built for one; -1 for all.
        use_mmap: map the file instead of reading it.
        kernels: this model's CPU kernels, whatever other models use. "ecl": ours where this CPU has
            one for the weights' format. "upstream": a step that verifies a draft runs token by
            token where bits would depend on the batch. "upstream-as-is": they may depend on it.
            None: what the environment variable ECL_KERNELS says, or else "ecl".
        options: adapters, positions and cache types; None for none and the model's own.

    Attributes:
        kernels: the CPU kernels, as above.
        options: as above.
        adapters: the loaded LoRA adapters.

    Raises:
        BadInput: no such kernels, or not a GGUF file, damaged, or not a language model that
            llama.cpp knows, or options that it cannot be run with.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        gpu_layers: int = 0,
        use_mmap: bool = True,
        kernels: KernelChoice | None = None,
        options: ModelOptions | None = None,
    ) -> None:
        check_number("gpu-layers (-ngl)", gpu_layers, -1, MOST_INT32, whole=True)
        self.path = Path(path)
        self.kernels: KernelChoice = kernels or binding.default_kernels()
        self.gpu_layers = gpu_layers
        self.options = options or ModelOptions()
        check_file(self.path)

        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if not use_mmap:
            params.load_mode = 0
        with binding.loading_for(self.kernels):
            super().__init__(self.path, self.path, params)
        self.n_layer: int = llama.llama_model_n_layer(self._handle)
        self.n_embd: int = llama.llama_model_n_embd(self._handle)
        try:
            self._check_language_model()
            self._take_options()
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

    def _take_options(self) -> None:
        options = self.options
        if options.position_flags and llama.llama_model_rope_type(self._handle) < 0:
            raise BadInput(
                f"{self.path} has no rotary positions to scale; leave out"
                f" {', '.join(options.position_flags)}"
            )
        trained: int = llama.llama_model_n_ctx_train(self._handle)
        original = self.hyperparameter("rope.scaling.original_context_length", trained)
        self.n_ctx_train = options.trained_context(trained, original)
        self.kv_value_bytes = (KV_TYPES[options.type_k][1] + KV_TYPES[options.type_v][1]) / 2
        self.adapters = Adapters(self._handle, self.path, self.architecture, options.lora)
        self.changes = options.changes

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
    def arithmetic(self) -> str:
        """See ``LanguageModel.arithmetic``: the CPU kernels, such as "ecl avx512vnni", and the
        types in the KV cache where they are not llama.cpp's default."""
        types = (self.options.type_k, self.options.type_v)
        cache = "" if types == ("f16", "f16") else f" cache {types[0]} {types[1]}"
        return kernel_choice(self.kernels) + cache

    @property
    def description(self) -> str:
        """llama.cpp's one-line description, such as "qwen2 1.5B Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(128)
        llama.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    def open_session(
        self, *, n_ctx: int | None = None, threads: int | None = None, max_outputs: int = 32
    ) -> Session:
        """See ``LanguageModel.open_session``."""
        from edge_conflayers.engine.session import Session  # which imports this module

        return Session(self, n_ctx=n_ctx, threads=threads, max_outputs=max_outputs)
