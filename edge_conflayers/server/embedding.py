"""Embeddings of texts."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.text_embedder import TextEmbedder
from edge_conflayers.errors import BadInput
from edge_conflayers.server.failures import TooLong


class Embeddings(Closing):
    """Embeds texts, one call after the other, in a context that is made at the first one.

    Args:
        n_ctx: most tokens of a text.
        threads: CPU threads.
    """

    def __init__(self, model: LanguageModel, n_ctx: int, threads: int) -> None:
        self._model = model
        self._n_ctx = n_ctx
        self._lock = threading.Lock()
        self._embedder = TextEmbedder(model, threads=threads) if isinstance(model, Model) else None

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Embeddings of length 1, and how many tokens the texts have.

        Raises:
            BadInput: the model embeds no texts, or a text is empty or too long.
        """
        model = self._model
        if self._embedder is None:
            raise BadInput(f"{model.path} embeds no texts; give the GGUF file it was made from")
        tokens = [model.tokenize(each) for each in texts]
        for each in tokens:
            if not each:
                raise BadInput("a text to embed is empty; give at least one character")
            if len(each) > self._n_ctx:
                raise TooLong(
                    f"a text has {len(each)} tokens, but the context holds {self._n_ctx};"
                    " shorten it"
                )
        with self._lock:
            vectors = self._embedder.embed(tokens)
        return vectors.tolist(), sum(map(len, tokens))

    def close(self) -> None:
        """Frees it."""
        if self._embedder is not None:
            with self._lock:
                self._embedder.close()
