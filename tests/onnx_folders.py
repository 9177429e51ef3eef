"""Exported models, opened for our own session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_conflayers.onnx.export import export
from edge_conflayers.onnx.model import OnnxModel

Opened = Callable[..., OnnxModel]


def write_folder(model: Path, folder: Path, **settings: Any) -> Path:
    """Exports a GGUF file; returns the folder."""
    export(model, folder, **settings)
    return folder
