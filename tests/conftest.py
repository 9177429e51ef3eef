"""Models for the tests: tiny random ones written once per run, real ones from the registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Threads that sleep while they wait: test machines are shared, and spinning threads starve each
# other. Read when the library loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from gguf_models import write_tiny_model
from offload import has_gpu, remote_device
from steps import ModelAt, RealModel, Tiny, TinyPath

from edge_conflayers.engine.model import Model
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.hub import models

_ON_REQUEST = ("large", "long")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--offload",
        type=int,
        default=0,
        metavar="LAYERS",
        help="put so many layers (-1: all) on the GPU, or else in a process of its own (GGML_RPC)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = str(config.getoption("markexpr"))
    for item in items:
        for marker in _ON_REQUEST:
            if item.get_closest_marker(marker) is not None and marker not in chosen:
                item.add_marker(pytest.mark.skip(reason=f"runs only with -m {marker}"))


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> TinyPath:
    """Writes a tiny random model (``gguf_models.write_tiny_model``'s arguments), once per kind."""
    folder = tmp_path_factory.mktemp("tiny")
    written: dict[tuple[Any, ...], Path] = {}

    def path(arch: str, **settings: Any) -> Path:
        key = (arch, *sorted(settings.items()))
        if key not in written:
            written[key] = write_tiny_model(folder / f"{len(written)}.gguf", arch, **settings)
        return written[key]

    return path


@pytest.fixture(scope="session")
def gpu_layers(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of the fixtures' models: 0, but with --offload."""
    layers = int(request.config.getoption("--offload"))
    with remote_device() if layers and not has_gpu() else contextlib.nullcontext():
        yield layers


@pytest.fixture(scope="session")
def model_at(gpu_layers: int) -> Iterator[ModelAt]:
    """Loads a model file, once per run."""
    loaded: dict[Path, Model] = {}

    def model(path: Path) -> Model:
        if path not in loaded:
            loaded[path] = Model(path, gpu_layers=gpu_layers)
        return loaded[path]

    yield model
    for each in loaded.values():
        each.close()


@pytest.fixture(scope="session")
def tiny(tiny_path: TinyPath, model_at: ModelAt) -> Tiny:
    """A loaded tiny random model."""
    return lambda arch, **settings: model_at(tiny_path(arch, **settings))


@pytest.fixture(scope="session")
def real_model(model_at: ModelAt) -> RealModel:
    """A loaded model of the registry, fetched on first use."""

    def model(name: str) -> Model:
        try:
            path = models.resolve(name)
        except EdgeConflayersError as error:
            pytest.skip(f"{name} cannot be had here: {error}")
        return model_at(path)

    return model
