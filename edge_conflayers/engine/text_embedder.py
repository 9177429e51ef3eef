"""Embeds texts with a model that is loaded, in a context of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.context import Context
from edge_conflayers.errors import EdgeConflayersError

_LEAST = 512  # tokens that fit at first; not tuned
_MOST_TEXTS = 64  # of one step; not tuned

Text = Sequence[int]


class TextEmbedder(Closing):
    """Embeddings of texts, as the model's file says, or else the mean of their tokens'.

    All tokens of a text are taken in one step, and so need memory for the step's logits as well;
    the context grows with the longest text.

    Args:
        model: stays open as long as this.
        threads: CPU threads.
    """

    def __init__(self, model: Model, *, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._context: Context | None = None
        self._size = 0

    def embed(self, texts: Sequence[Text]) -> npt.NDArray[np.float32]:
        """Embeddings of length 1: float32 [texts, n_embd].

        Args:
            texts: tokens, at least one of each.

        Raises:
            BadInput: no memory for a text so long.
            EdgeConflayersError: the model could not be run.
        """
        context = self._context_for(max(map(len, texts)))
        rows = [row for group in self._groups(texts) for row in self._step(context, group)]
        found = np.stack(rows)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(lengths > 0, lengths, 1), np.float32)

    def _context_for(self, tokens: int) -> Context:
        if self._context is not None and tokens <= self._size:
            return self._context
        self.close()
        size = max(_LEAST, 1 << (tokens - 1).bit_length())
        own = self._model.hyperparameter("pooling_type", llama.LLAMA_POOLING_TYPE_NONE)
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = size
        params.n_seq_max = _MOST_TEXTS
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings = True
        params.pooling_type = own or llama.LLAMA_POOLING_TYPE_MEAN
        params.no_perf = True
        self._context, self._size = Context(self._model, params), size
        return self._context

    def _groups(self, texts: Sequence[Text]) -> Iterator[list[Text]]:
        """Texts that fit in one step each."""
        group: list[Text] = []
        for text in texts:
            taken = sum(map(len, group))
            if group and (taken + len(text) > self._size or len(group) == _MOST_TEXTS):
                yield group
                group = []
            group.append(text)
        yield group

    def _step(self, context: Context, texts: Sequence[Text]) -> Iterator[npt.NDArray[np.float32]]:
        llama.llama_memory_clear(context.memory, True)
        batch = llama.llama_batch_init(sum(map(len, texts)), 0, 1)
        try:
            for number, text in enumerate(texts):
                for position, token in enumerate(text):
                    at = batch.n_tokens
                    batch.token[at], batch.pos[at] = token, position
                    batch.n_seq_id[at], batch.seq_id[at][0] = 1, number
                    batch.logits[at] = True
                    batch.n_tokens += 1
            status = llama.llama_decode(context.handle, batch)
        finally:
            llama.llama_batch_free(batch)
        if status != 0:
            raise EdgeConflayersError(f"the texts could not be embedded (code {status})")
        for number in range(len(texts)):
            row = llama.llama_get_embeddings_seq(context.handle, number)
            yield np.ctypeslib.as_array(row, shape=(self._model.n_embd,)).copy()

    def close(self) -> None:
        """Frees the context; may be called again."""
        if self._context is not None:
            self._context.close()
            self._context, self._size = None, 0
