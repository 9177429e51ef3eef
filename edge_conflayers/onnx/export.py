"""Exports a GGUF model to a folder that ONNX runtimes take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx import TensorProto

from edge_conflayers import __version__
from edge_conflayers.engine.model_checks import check_file
from edge_conflayers.onnx.architecture import Architecture, read_architecture
from edge_conflayers.onnx.configs import check_vocabulary, write_configs
from edge_conflayers.onnx.external_data import DataFile
from edge_conflayers.onnx.folder import GRAPH, METADATA_PREFIX, WEIGHTS
from edge_conflayers.onnx.gguf_file import read_gguf
from edge_conflayers.onnx.graph.model import ModelGraph
from edge_conflayers.onnx.graph.operators import Operators
from edge_conflayers.onnx.graph.ort import OrtOperators
from edge_conflayers.onnx.graph.standard import StandardOperators
from edge_conflayers.onnx.new_folder import check_new, check_room, new_folder
from edge_conflayers.onnx.tensors import Tensors
from edge_conflayers.onnx.weights import Precision

Target = Literal["ort", "standard"]
TARGETS: dict[Target, Callable[[int], Operators]] = {
    "ort": OrtOperators,
    "standard": StandardOperators,
}
PRECISIONS: tuple[Precision, ...] = ("keep", "fp32", "fp16")

_BESIDE = 64 << 20  # bytes besides the weights: the graph, vocabulary and tokenizer


@dataclass(frozen=True)
class ExportProgress:
    """How far an export is.

    Attributes:
        stage: "reading" (the file's SHA-256) or "writing" (the weights).
        done, total: in bytes.
    """

    stage: Literal["reading", "writing"]
    done: int
    total: int


ProgressCallback = Callable[[ExportProgress], None]


def export(
    model: Path,
    folder: Path,
    *,
    target: Target = "ort",
    precision: Precision = "keep",
    on_progress: ProgressCallback | None = None,
) -> None:
    """Writes a folder with the model's graph, weights and configuration.

    Args:
        model: the .gguf file.
        folder: does not exist yet, or is empty. It gets its name when it is complete.
        target: whose operators: ONNX Runtime's own, which are faster there, or standard ones.
        precision: "keep" the file's own, or write all weights as "fp32" or "fp16". Activations
            and the cache are float32, with "fp16" float16.

    Raises:
        BadInput: the model can't be exported, or the folder is not empty or can't be written.
        EdgeConflayersError: no room on the disk.
    """
    check_new(folder)
    check_file(model)
    file = read_gguf(model)
    architecture = read_architecture(file)
    vocabulary = check_vocabulary(model)
    dtype = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    operators = TARGETS[target](dtype)
    operators.check(architecture)
    data = DataFile(WEIGHTS.name)
    tensors = Tensors(file, architecture, precision, operators.turned, data)
    report = _Reporter(on_progress)
    with new_folder(folder) as work:
        report.begin("reading", model.stat().st_size)
        metadata = _metadata(architecture, file.sha256(report.add), target, precision)
        graph = ModelGraph(architecture, tensors, operators, dtype).build(metadata)
        check_room(work, data.size + _BESIDE)
        (work / GRAPH).parent.mkdir()
        report.begin("writing", data.content)
        data.write((work / GRAPH).parent, report.add)
        (work / GRAPH).write_bytes(graph.SerializeToString())
        write_configs(
            model,
            work,
            header=file.header,
            architecture=architecture,
            vocabulary=vocabulary,
            graph=GRAPH,
            shares_cache=target == "ort",
            half=precision == "fp16",
        )


def _metadata(
    architecture: Architecture, sha256: str, target: Target, precision: Precision
) -> dict[str, str]:
    values = {
        "version": __version__,
        "source_sha256": sha256,
        "target": target,
        "precision": precision,
        "architecture": architecture.name,
        "n_layer": architecture.n_layer,
        "n_embd": architecture.n_embd,
        "n_head": architecture.n_head,
        "n_head_kv": architecture.n_head_kv,
        "head_dim": architecture.head_dim,
        "n_vocab": architecture.n_vocab,
        "n_ctx_train": architecture.n_ctx_train,
    }
    return {f"{METADATA_PREFIX}{key}": str(value) for key, value in values.items()}


class _Reporter:
    """Tells how far an export is, once for every hundredth."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback

    def begin(self, stage: Literal["reading", "writing"], total: int) -> None:
        self._stage: Literal["reading", "writing"] = stage
        self._done, self._told, self._total = 0, -1, total
        self.add(0)

    def add(self, done: int) -> None:
        self._done += done
        hundredth = 100 * self._done // max(1, self._total)
        if self._callback is not None and hundredth != self._told:
            self._told = hundredth
            self._callback(ExportProgress(self._stage, self._done, self._total))
