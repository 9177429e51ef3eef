"""The packages that only ONNX needs, which not everybody installs."""

from __future__ import annotations

from edge_conflayers.extras import check_packages

_PACKAGES = ("gguf", "onnx", "onnxruntime", "tokenizers")


def check_extra() -> None:
    """See ``check_packages``."""
    check_packages("ONNX", "onnx", _PACKAGES)
