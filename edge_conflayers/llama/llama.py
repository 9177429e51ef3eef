"""``Llama``, a drop-in for ``llama_cpp.Llama``."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge_conflayers.engine import native
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.vocabulary import Vocabulary, vocabulary_only
from edge_conflayers.llama.arguments import NOT_HERE, check_others, model_options
from edge_conflayers.llama.chats import LlamaChats
from edge_conflayers.llama.embedding import LlamaEmbeddings, embedder
from edge_conflayers.llama.errors import BadValue, as_value_errors
from edge_conflayers.llama.pretrained import download
from edge_conflayers.llama.states import LlamaStates
from edge_conflayers.llama.tokens import LlamaTokens
from edge_conflayers.llama.turns import Turns
from edge_conflayers.text_generator import TextGenerator

_RANDOM_SEED = 2**32 - 1
_BATCH = 512  # tokens that are read at a time
_made: weakref.WeakSet[Llama] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Closes those that nobody did, as is usual with llama-cpp-python: when Python deletes them, it
    is too late to keep what was learned."""
    for each in list(_made):
        each.close()


class Llama(Closing, LlamaChats, LlamaStates, LlamaEmbeddings, LlamaTokens):
    """A model, with the methods and results of ``llama_cpp.Llama``.

    Texts are written by drafting and verification, and what is learned about the model is kept, as
    on the command line. Arguments that are not named below are llama-cpp-python's that mean nothing
    here, which is said in one line (logger ``edge_conflayers``); unknown ones are refused.

    Args:
        model_path: the .gguf file.
        n_gpu_layers: layers on the GPU; -1 for all.
        vocab_only: load the vocabulary only, for ``tokenize`` and ``detokenize``.
        seed: of the sequence of texts.
        n_ctx: tokens of the context; 0 for what the model was trained for.
        n_threads: CPU threads; None for the machine's physical cores.
        rope_scaling_type, rope_freq_base, rope_freq_scale, yarn_ext_factor, yarn_attn_factor,
            yarn_beta_fast, yarn_beta_slow, yarn_orig_ctx: positions, as for ``ModelOptions``.
        pooling_type: of embeddings.
        embedding: make ``embed`` and ``create_embedding`` work.
        logits_all: keep the logits after each token of ``eval``, as ``scores``.
        last_n_tokens_size: recent tokens that penalties look at.
        lora_path, lora_scale: an adapter.
        chat_format, chat_handler: of llama-cpp-python; None for the template in the file.
        type_k, type_v: types of the cache, as ggml.h's numbers or by name.
        spm_infill: ask for what goes before a suffix by suffix, prefix, middle.
        verbose: show what llama.cpp logs, on standard error.
        method: how to decode, as for ``TextGenerator``.
        kernels: the CPU kernels, as for ``Model``.
        exact_reuse: of the cache, as for ``TextGenerator``; llama-cpp-python's is not exact either.
        fresh: neither use nor keep what is learned.

    Raises:
        ValueError: a model or an argument that cannot be used.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        n_gpu_layers: int = 0,
        vocab_only: bool = False,
        seed: int = _RANDOM_SEED,
        n_ctx: int = 512,
        n_threads: int | None = None,
        rope_scaling_type: int | None = -1,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        yarn_ext_factor: float = -1.0,
        yarn_attn_factor: float = 1.0,
        yarn_beta_fast: float = 32.0,
        yarn_beta_slow: float = 1.0,
        yarn_orig_ctx: int = 0,
        pooling_type: int = -1,
        logits_all: bool = False,
        embedding: bool = False,
        last_n_tokens_size: int = 64,
        lora_path: str | None = None,
        lora_scale: float = 1.0,
        chat_format: str | None = None,
        chat_handler: Any = None,
        type_k: int | str | None = None,
        type_v: int | str | None = None,
        spm_infill: bool = False,
        verbose: bool = True,
        method: str = "auto",
        kernels: KernelChoice | None = None,
        exact_reuse: bool = False,
        fresh: bool = False,
        **others: Any,
    ) -> None:
        given = dict(locals())
        self._arguments = {key: given[key] for key in given if key not in ("self", "others")}
        self._arguments |= others
        known = {*self.__init__.__kwdefaults__, "model_path"}  # type: ignore[misc]
        check_others(others, known, embedding=embedding)
        if not Path(model_path).exists():
            raise BadValue(f"Model path does not exist: {model_path}")
        self.model_path = str(model_path)
        self.verbose = verbose
        self.last_n_tokens_size = last_n_tokens_size
        self.chat_format = chat_format
        self.chat_handler = chat_handler
        self.spm_infill = spm_infill
        self.cache: Any = None
        self.n_batch = _BATCH
        self._seed = seed or _RANDOM_SEED
        self._logits_all = logits_all
        self._forget_logits()
        self._turns = Turns()
        self._vocab_only = vocab_only
        native.log.show = verbose
        with as_value_errors():
            self._settings: dict[str, Any] = {
                "method": method,
                "n_ctx": n_ctx,
                "threads": n_threads,
                "gpu_layers": n_gpu_layers,
                "kernels": kernels,
                "exact_reuse": exact_reuse,
                "fresh": fresh,
                "options": model_options(
                    type_k=type_k,
                    type_v=type_v,
                    lora_path=lora_path,
                    lora_scale=lora_scale,
                    rope_scaling_type=rope_scaling_type,
                    rope_freq_base=rope_freq_base,
                    rope_freq_scale=rope_freq_scale,
                    yarn_ext_factor=yarn_ext_factor,
                    yarn_attn_factor=yarn_attn_factor,
                    yarn_beta_fast=yarn_beta_fast,
                    yarn_beta_slow=yarn_beta_slow,
                    yarn_orig_ctx=yarn_orig_ctx,
                ),
            }
            if vocab_only or embedding:  # a model that only embeds writes no texts
                path = Path(model_path)
                self._open_vocabulary = Vocabulary(path, path, vocabulary_only())
            else:
                self._open_vocabulary = self._generator.model
        trained = native.llama.llama_model_n_ctx_train(self._vocabulary.handle)
        self._n_ctx = n_ctx or int(trained)
        if embedding:
            self._make_embedder = functools.partial(
                embedder,
                model_path=self.model_path,
                n_gpu_layers=n_gpu_layers,
                n_ctx=n_ctx,
                n_threads=n_threads or max(multiprocessing.cpu_count() // 2, 1),
                pooling_type=pooling_type,
                verbose=verbose,
                kernels=kernels,
                others=others,
            )
        self.context_params = SimpleNamespace(n_ctx=self._n_ctx, embeddings=embedding)
        self.model_params = SimpleNamespace(n_gpu_layers=n_gpu_layers, vocab_only=vocab_only)
        _made.add(self)

    @functools.cached_property
    def _generator(self) -> TextGenerator:
        if self._vocab_only:
            raise BadValue("only the vocabulary is loaded; leave out vocab_only to write texts")
        if self._closed:
            raise BadValue("the model is closed; make a new Llama")
        return TextGenerator(self.model_path, **self._settings)

    _closed = False
    _open_vocabulary: Vocabulary | None = None

    @property
    def _vocabulary(self) -> Vocabulary:  # type: ignore[override]
        if self._open_vocabulary is None:
            raise BadValue("the model is closed; make a new Llama")
        return self._open_vocabulary

    def close(self) -> None:
        """Keeps what was learned, and frees the model; may be called again."""
        self._closed = True
        self._close_embedder()
        generator = self.__dict__.pop("_generator", None)
        if generator is not None:
            generator.close()
        vocabulary, self._open_vocabulary = self._open_vocabulary, None
        if vocabulary is not None:
            vocabulary.close()

    def __del__(self) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        why = NOT_HERE.get(name)
        raise AttributeError(f"Llama has no {name!r}" + (f" here: {why}" if why else ""))

    def __getstate__(self) -> dict[str, Any]:
        """What it was made with; the text in its cache is not part of it."""
        return {
            **self._arguments,
            "seed": self._seed,
            "chat_format": self.chat_format,
            "chat_handler": self.chat_handler,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        additional_files: list[str] | None = None,
        local_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        local_dir_use_symlinks: Any = None,
        **kwargs: Any,
    ) -> Llama:
        """A model of Hugging Face, which is downloaded if it has to be.

        Args:
            repo_id: such as "Qwen/Qwen2-0.5B-Instruct-GGUF".
            filename: of the file, or a pattern that one file matches, such as "*q8_0.gguf". By its
                name, a file that was downloaded before is found without a network.
            additional_files: names or patterns of further files, such as a model's other parts.
            local_dir, cache_dir: where to; None for Hugging Face's own cache.
            local_dir_use_symlinks: without effect, as in Hugging Face's library.
            kwargs: for the constructor.

        Raises:
            ValueError: no file matches, or several do.
            EdgeConflayersError: the repository cannot be read.
        """
        folders = {"local_dir": local_dir, "cache_dir": cache_dir}
        path, *_ = download(repo_id, [filename, *(additional_files or ())], **folders)
        return cls(path, **kwargs)
