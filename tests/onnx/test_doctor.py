"""The doctor on a folder that `export` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx_folders import write_folder

from edge_conflayers.doctor.examine import examine
from edge_conflayers.machine.memory_speed import MemoryReading


def test_a_folder_is_examined_as_far_as_it_shows(
    tiny_path: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryReading, "read_for", lambda self, seconds: self.read())
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    folder = write_folder(tiny_path("llama", n_layer=4), tmp_path / "folder")
    report = examine(str(folder), Path, threads=1)
    assert report.problems == []
    found = {section.name: section.data for section in report.sections}
    assert list(found) == ["library", "machine", "model", "steps", "memory", "learned"]
    assert "onnxruntime" in found["model"]["arithmetic"]
    assert found["steps"]["layer_mask"] is True and found["steps"]["t1_ms"] > 0
    assert "floor_ms" not in found["steps"]  # what its steps read is not told
    assert found["memory"]["weight_bytes"] > 0
