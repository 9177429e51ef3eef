"""Opens whatever model a path means: a GGUF file, or a folder that ``export`` wrote."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_options import ModelOptions
from edge_conflayers.errors import BadInput

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""What runs a folder, as a user names it and as ONNX Runtime does."""


def open_model(
    path: str | Path,
    *,
    gpu_layers: int = 0,
    kernels: KernelChoice | None = None,
    provider: str | None = None,
    threads: int | None = None,
    options: ModelOptions | None = None,
) -> LanguageModel:
    """Loads a model.

    Args:
        path: the .gguf file, or the folder.
        gpu_layers, kernels: as for ``Model``; a folder takes none.
        provider: a key of PROVIDERS, for a folder; None for "cpu".
        threads: that most sessions will ask for.
        options: as for ``Model``; a folder takes none.

    Raises:
        BadInput: a model that cannot be loaded, or an option that it has no use for.
    """
    path = Path(path)
    if not path.is_dir():
        if provider is not None:
            raise BadInput(
                f"--provider is for folders that `export` wrote, and {path} is none; leave it out"
            )
        return Model(path, gpu_layers=gpu_layers, kernels=kernels, options=options)
    if gpu_layers:
        raise BadInput(f"{path} runs on ONNX Runtime; give --provider instead of -ngl")
    if kernels is not None:
        raise BadInput(f"{path} runs on ONNX Runtime's own kernels; leave out --kernels")
    if options is not None and options.flags:
        raise BadInput(
            f"{path} runs on ONNX Runtime, as it was exported; leave out {', '.join(options.flags)}"
        )
    if find_spec("onnxruntime") is None:
        raise BadInput(f"{path} needs onnxruntime; run `pip install 'edge-conflayers[onnx]'` first")
    from edge_conflayers.onnx.model import OnnxModel

    return OnnxModel(path, provider=provider or "cpu", threads=threads)


def open_draft_model(
    path: str | Path,
    model: LanguageModel,
    *,
    kernels: KernelChoice | None = None,
    provider: str | None = None,
    threads: int | None = None,
) -> LanguageModel:
    """Loads a second model to draft for a model: where and on which kernels that one runs, as far
    as both are of a kind."""
    path = Path(path)
    if path.is_dir():
        return open_model(path, provider=provider, threads=threads)
    return open_model(path, gpu_layers=model.gpu_layers, kernels=kernels, threads=threads)
