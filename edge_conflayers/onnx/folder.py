"""Where things are in a folder that ``export`` wrote."""

from __future__ import annotations

from pathlib import Path

GRAPH = Path("onnx", "model.onnx")
WEIGHTS = Path("onnx", "model.onnx_data")
VOCABULARY = Path("vocabulary.gguf")

METADATA_PREFIX = "edge_conflayers."
"""Begins our keys in the graph's metadata."""
