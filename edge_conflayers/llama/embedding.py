"""Embeddings, by llama-cpp-python's own class over our library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edge_conflayers.engine.binding import KernelChoice, default_kernels, loading_for
from edge_conflayers.engine.native import binding_module
from edge_conflayers.llama.arguments import OF_EMBEDDINGS
from edge_conflayers.llama.errors import BadValue


class LlamaEmbeddings:
    """The methods about embeddings. A model that only embeds is served as well."""

    _embedder: Any = None
    _make_embedder: Callable[[], Any] | None = None  # set by ``embedding=True``

    def embed(
        self,
        input: str | list[str],
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """Embeddings of texts, as ``llama_cpp.Llama.embed`` returns them."""
        return self._embedding_model.embed(input, normalize, truncate, return_count)

    def create_embedding(self, input: str | list[str], model: str | None = None) -> Any:
        """Embeddings of texts, as the OpenAI API returns them."""
        return self._embedding_model.create_embedding(input, model)

    def pooling_type(self) -> int:
        """How the embedding of a text is made of its tokens'."""
        return int(self._embedding_model.pooling_type())

    @property
    def _embedding_model(self) -> Any:
        if self._make_embedder is None:
            raise BadValue("Llama must be made with embedding=True to embed texts; give it")
        if self._embedder is None:
            self._embedder = self._make_embedder()
        return self._embedder

    def _close_embedder(self) -> None:
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None


def embedder(*, kernels: KernelChoice | None, others: Mapping[str, Any], **arguments: Any) -> Any:
    """llama-cpp-python's class for embeddings, over our library.

    Args:
        kernels: the CPU kernels; None for ``default_kernels()``.
        others: arguments that mean something to that class only.
        arguments: for it as well.
    """
    own = {name: value for name, value in others.items() if name in OF_EMBEDDINGS}
    with loading_for(kernels or default_kernels()):
        return binding_module("llama").Llama(**arguments, **own, embedding=True)
