"""Single runs of an exported graph: tokens in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime import OrtValue

from edge_conflayers.engine.session.mask import LayerMask
from edge_conflayers.errors import EdgeConflayersError, one_line
from edge_conflayers.onnx.caches import cache_for
from edge_conflayers.onnx.model import OnnxModel

Logits = npt.NDArray[np.float32]

_DOUBLE = "double_attention"


class Steps:
    """Runs a graph over one text. The graph's past and present are bound to the cache, so that a
    run takes its tokens and nothing else.

    Args:
        n_ctx: positions of the cache.
        threads: CPU threads.
        most_kept: most tokens of one run whose logits are kept.

    Attributes:
        cache: keys and values.
        can_double: whether the graph has the input ``double_attention``.
    """

    def __init__(self, model: OnnxModel, *, n_ctx: int, threads: int, most_kept: int) -> None:
        self._graph = model.graph(threads)
        self._binding: Any = self._graph.io_binding()
        self._path = model.path
        self._n_layer = model.n_layer
        self._logits: Logits = np.empty((1, most_kept, model.n_vocab), dtype=np.float32)
        self._seen = np.ones((1, n_ctx), dtype=np.int64)
        self.cache = cache_for(model, n_ctx)
        defaults = self._graph.get_overridable_initializers()
        self.can_double = _DOUBLE in (each.name for each in defaults)
        self.set_mask(LayerMask())

    def set_mask(self, mask: LayerMask) -> None:
        """Sets the sub-layers that the next runs leave out.

        Raises:
            BadInput: a layer that the model does not have.
        """
        dropped = np.frombuffer(mask.packed(self._n_layer), dtype=np.uint8)
        # Bits 1 and 2 of a byte are attention and MLP; the graph asks which of them run.
        self._runs = np.stack([dropped & 1 == 0, dropped & 2 == 0], axis=1)
        self._binding.bind_ortvalue_input("layer_mask", OrtValue.ortvalue_from_numpy(self._runs))

    def run(self, tokens: Sequence[int], begin: int, kept: int, *, double: bool = False) -> Logits:
        """Runs over tokens from position ``begin`` on.

        Args:
            kept: how many of the last tokens' logits to return, at least one.
            double: let attention see each token twice (``graph.ort``), which takes as many
                positions behind them; only where ``can_double``.

        Returns:
            float32 [kept, n_vocab], valid until the next run.

        Raises:
            EdgeConflayersError: the run failed.
        """
        n = len(tokens)
        logits = self._logits[:, :kept]
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.array([tokens], dtype=np.int64),
            "attention_mask": self._seen[:, : begin + n],
            "num_logits_to_keep": np.array(kept, dtype=np.int64),
        }
        if self.can_double:
            inputs[_DOUBLE] = np.array(double)
        for name, array in inputs.items():
            self._binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        self._binding.bind_ortvalue_output("logits", OrtValue.ortvalue_from_numpy(logits))
        self.cache.bind(self._binding, begin, n)
        try:
            self._graph.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's have no base class of their own
            raise EdgeConflayersError(
                f"{self._path} could not be run: {one_line(str(error))[:300]}"
            ) from error
        self.cache.stepped()
        found: Logits = logits[0]
        return found
