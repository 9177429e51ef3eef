"""An exported model: its graph on ONNX Runtime, and llama.cpp's vocabulary of the file it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_conflayers import machine
from edge_conflayers.engine.gguf_header import read_header
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.vocabulary import vocabulary_only
from edge_conflayers.errors import BadInput
from edge_conflayers.onnx import runtime
from edge_conflayers.onnx.folder import GRAPH, METADATA_PREFIX, VOCABULARY, WEIGHTS

if TYPE_CHECKING:
    from edge_conflayers.onnx.session import OnnxSession

_VALUE_BYTES = {"tensor(float)": 4.0, "tensor(float16)": 2.0}


class OnnxModel(LanguageModel):
    """A folder that ``export`` wrote. Close it, or use it in a ``with`` statement.

    Args:
        path: the folder.
        provider: what runs it, a key of ``opening.PROVIDERS``.
        threads: CPU threads that most sessions will ask for; None for the physical cores.

    Attributes:
        provider: as above.
        target: the operators that the graph is made of, "ort" or "standard".

    Raises:
        BadInput: not such a folder, damaged, of another version, or the provider is not there.
    """

    shows_states = False

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int | None = None) -> None:
        runtime.check_provider(provider)
        for name in (GRAPH, WEIGHTS, VOCABULARY):
            if not (path / name).is_file():
                raise BadInput(
                    f"{path} is no folder that `edge-conflayers export` wrote: it has no {name};"
                    " export a model, or give a .gguf file"
                )
        read_header(path / VOCABULARY)  # says what is wrong where llama.cpp could give up
        self.provider = provider
        self._graphs: dict[int, Any] = {}
        super().__init__(path, path / VOCABULARY, vocabulary_only())
        try:
            graph = self.graph(machine.threads_to_use(threads))
            self._read_properties(graph)
        except BadInput:
            self.close()
            raise

    def _read_properties(self, graph: Any) -> None:
        found = graph.get_modelmeta().custom_metadata_map
        numbers = ("n_layer", "n_embd", "n_head_kv", "head_dim", "n_vocab", "n_ctx_train")
        try:
            self.target = found[f"{METADATA_PREFIX}target"]
            n_layer, n_embd, n_head_kv, head_dim, n_vocab, n_ctx_train = (
                int(found[METADATA_PREFIX + key]) for key in numbers
            )
        except (KeyError, ValueError):
            raise BadInput(
                f"{self.path / GRAPH} does not say what `edge-conflayers export` writes into it;"
                " export the model again with this version"
            ) from None
        architecture = found.get(f"{METADATA_PREFIX}architecture")
        if (n_vocab, architecture) != (self.n_vocab, self.architecture):
            raise BadInput(
                f"{VOCABULARY} and {GRAPH} in {self.path} are of different models;"
                " export the model again"
            )
        self.n_layer, self.n_embd = n_layer, n_embd
        # The graph has a table of positions, of which plain steps take one more (``exact.ROOM``).
        self.n_ctx_train = self.longest = n_ctx_train - 1
        self.head_shape = (n_head_kv, head_dim)
        self.cache_type: str = next(
            each.type for each in graph.get_inputs() if each.name.startswith("past_key_values")
        )
        self.kv_value_bytes = _VALUE_BYTES[self.cache_type]

    def graph(self, threads: int) -> Any:
        """The ``onnxruntime.InferenceSession`` for a number of CPU threads. The last one is kept:
        each has the weights in memory."""
        if threads not in self._graphs:
            self._graphs.clear()
            self._graphs[threads] = runtime.load_graph(self.path / GRAPH, self.provider, threads)
        return self._graphs[threads]

    @property
    def on_gpu(self) -> bool:
        """See ``LanguageModel.on_gpu``."""
        return self.provider in ("cuda", "dml")

    @property
    def forgets(self) -> bool:
        """See ``LanguageModel.forgets``."""
        return True

    @property
    def arithmetic(self) -> str:
        """See ``LanguageModel.arithmetic``: the runtime, its version and provider."""
        return f"onnxruntime {runtime.VERSION} {self.provider}"

    def open_session(
        self, *, n_ctx: int | None = None, threads: int | None = None, max_outputs: int = 32
    ) -> OnnxSession:
        """See ``LanguageModel.open_session``."""
        from edge_conflayers.onnx.session import OnnxSession  # which imports this module

        return OnnxSession(self, n_ctx=n_ctx, threads=threads, max_outputs=max_outputs)

    def close(self) -> None:
        """Frees graph and vocabulary; its sessions must be closed before."""
        self._graphs.clear()
        super().close()
