"""Exported models for the tests, each written and opened once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from onnx_folders import Opened, write_folder
from steps import RealModel, TinyPath

from edge_conflayers.engine.session import exact_batch
from edge_conflayers.onnx.model import OnnxModel


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny_path: TinyPath) -> Any:
    """The export of a tiny model of this architecture."""
    root = tmp_path_factory.mktemp("folders")
    written: dict[tuple[Any, ...], Path] = {}

    def folder(arch: str, target: str = "ort", precision: str = "keep", **settings: Any) -> Path:
        settings = {"context_length": 512, **settings}
        key = (arch, target, precision, *sorted(settings.items()))
        if key not in written:
            written[key] = write_folder(
                tiny_path(arch, **settings),
                root / str(len(written)),
                target=target,
                precision=precision,
            )
        return written[key]

    return folder


@pytest.fixture(scope="session")
def opened(folder_of: Any) -> Iterator[Opened]:
    """The same, opened on one thread."""
    models: dict[Path, OnnxModel] = {}

    def model(arch: str, **settings: Any) -> OnnxModel:
        folder = folder_of(arch, **settings)
        if folder not in models:
            models[folder] = OnnxModel(folder, threads=1)
        return models[folder]

    yield model
    for each in models.values():
        each.close()


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory: pytest.TempPathFactory, real_model: RealModel) -> Any:
    """The export of a model of the registry."""
    root = tmp_path_factory.mktemp("real")
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = write_folder(real_model(name).path, root / name)
        return written[name]

    return folder


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> MutableMapping[Any, int]:
    """What sessions remember of batches, empty at first."""
    answers: dict[Any, int] = {}
    monkeypatch.setattr(exact_batch, "remembered", answers)
    return answers
