"""Embeddings of texts, by llama-cpp-python's class over our library."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput
from edge_conflayers.llama.embedding import embedder
from edge_conflayers.server.failures import TooLong

_OF_THE_MODEL, _MEAN = -1, 1  # LLAMA_POOLING_TYPE_UNSPECIFIED, LLAMA_POOLING_TYPE_MEAN


class Embeddings:
    """Embeds texts, one call after the other. The model is loaded once more at the first one.

    Where a model's file does not say how a text's embedding is made of its tokens', it is their
    mean.

    Args:
        n_ctx: most tokens of a text.
        threads: CPU threads.
    """

    def __init__(self, model: LanguageModel, n_ctx: int, threads: int) -> None:
        self._model = model
        self._n_ctx = n_ctx
        self._threads = threads
        self._lock = threading.Lock()
        self._embedder: Any = None

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Embeddings of length 1, and how many tokens the texts have.

        Raises:
            BadInput: the model embeds no texts, or a text is empty or too long.
        """
        model = self._model
        if not isinstance(model, Model):
            raise BadInput(f"{model.path} embeds no texts; give the GGUF file it was made from")
        for text in texts:
            tokens = len(model.tokenize(text))
            if not tokens:
                raise BadInput("a text to embed is empty; give at least one character")
            if tokens > self._n_ctx:
                raise TooLong(
                    f"a text has {tokens} tokens, but the context holds {self._n_ctx}; shorten it"
                )
        with self._lock:
            if self._embedder is None:
                self._embedder = self._load(model)
            vectors, tokens = self._embedder.embed(list(texts), normalize=True, return_count=True)
        return vectors, tokens

    def _load(self, model: Model) -> Any:
        says = f"{model.architecture}.pooling_type" in model.metadata
        return embedder(
            kernels=None,
            others={"n_batch": self._n_ctx, "n_ubatch": self._n_ctx},
            model_path=str(model.path),
            n_ctx=self._n_ctx,
            n_gpu_layers=model.gpu_layers,
            n_threads=self._threads,
            pooling_type=_OF_THE_MODEL if says else _MEAN,
            verbose=False,
        )

    def close(self) -> None:
        """Frees it."""
        with self._lock:
            if self._embedder is not None:
                self._embedder.close()
                self._embedder = None
