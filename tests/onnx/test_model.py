"""Opening folders: what is no export, what is damaged, what cannot be had here."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from steps import TinyPath

from edge_conflayers.errors import BadInput
from edge_conflayers.hub.models import resolve
from edge_conflayers.learned import Learned
from edge_conflayers.methods import METHODS, STATES_METHODS, make_method
from edge_conflayers.onnx.model import OnnxModel
from edge_conflayers.onnx.opening import open_draft_model, open_model
from edge_conflayers.profiles import ProfileStore, model_fingerprint

FolderOf = Callable[..., Path]


@pytest.fixture
def folder(folder_of: FolderOf, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(folder_of("llama"), tmp_path / "copy"))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(BadInput) as error:
        open_model(path, threads=1, **options).close()
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model.onnx_data", "vocabulary.gguf"])
def test_a_folder_that_lacks_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"it has no {name}; export a model, or give a .gguf file" in refused(folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert "is no folder that `edge-conflayers export` wrote" in refused(tmp_path)
    with pytest.raises(BadInput, match="a folder without a model"):
        resolve(str(tmp_path))


def test_a_folder_is_a_models_name(folder: Path) -> None:
    assert resolve(str(folder)) == folder


@pytest.mark.parametrize("kept", [0, 1000, 0.5, 0.99])
@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model.onnx_data", "vocabulary.gguf"])
def test_a_file_that_is_cut_off(folder: Path, name: str, kept: float) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    text = refused(folder)
    assert str(folder) in text
    assert any(advice in text for advice in ("export the model", "undamaged", "GGUF", "again"))


def test_a_file_of_noise(folder: Path) -> None:
    for name in ("onnx/model.onnx", "vocabulary.gguf"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes(range(256)) * 40)
        assert str(folder) in refused(folder)
        (folder / name).write_bytes(before)


def changed(folder: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def test_a_graph_of_another_program(folder: Path) -> None:
    changed(folder, lambda model: model.ClearField("metadata_props"))
    assert "does not say what `edge-conflayers export` writes into it" in refused(folder)


def test_a_graph_for_a_later_onnxruntime(folder: Path) -> None:
    def later(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 99

    changed(folder, later)
    text = refused(folder)
    assert f"cannot be run by onnxruntime {onnxruntime.__version__}" in text
    assert "another onnxruntime" in text


def test_a_vocabulary_of_another_model(folder: Path, folder_of: FolderOf) -> None:
    for other in (folder_of("llama", n_vocab=333), folder_of("qwen2")):
        shutil.copy(other / "vocabulary.gguf", folder / "vocabulary.gguf")
        assert "are of different models" in refused(folder)


def test_providers(folder: Path, tiny_path: TinyPath) -> None:
    for provider in ("cuda", "dml", "coreml", "nonsense"):
        if provider in ("cuda", "dml", "coreml"):
            full = {"cuda": "CUDA", "dml": "Dml", "coreml": "CoreML"}[provider]
            if f"{full}ExecutionProvider" in onnxruntime.get_available_providers():
                continue
        text = refused(folder, provider=provider)
        assert f"has no provider '{provider}' here" in text and "choose from cpu" in text
    with open_model(folder, provider="cpu", threads=1) as model:
        assert model.arithmetic == f"onnxruntime {onnxruntime.__version__} cpu"
    assert "--provider is for folders" in refused(tiny_path("llama"), provider="cpu")


def test_options_of_llama_cpp(folder: Path) -> None:
    assert "give --provider instead of -ngl" in refused(folder, gpu_layers=3)
    assert "leave out --kernels" in refused(folder, kernels="ecl")


def test_without_onnxruntime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "edge_conflayers.onnx.opening.find_spec",
        lambda name: None if name == "onnxruntime" else found(name),
    )
    assert "run `pip install 'edge-conflayers[onnx]'`" in refused(folder)


def test_a_second_model_of_the_other_kind(folder: Path, tiny_path: TinyPath) -> None:
    with (
        open_model(folder, threads=1) as model,
        open_draft_model(tiny_path("llama"), model, threads=1) as of_llama_cpp,
        open_draft_model(folder, of_llama_cpp, threads=1) as exported,
    ):
        assert of_llama_cpp.shows_states and isinstance(exported, OnnxModel)


def test_methods_that_look_at_states(folder: Path) -> None:
    with open_model(folder, threads=1) as model:
        for name in STATES_METHODS:
            with pytest.raises(BadInput, match=r"needs hidden states.*choose from auto, plain"):
                make_method(name, model)
        for name in METHODS:
            if name not in STATES_METHODS and "draft-model" not in name:
                make_method(name, model).close()


def test_what_is_learned_is_of_the_folder_and_its_runtime(
    folder: Path, tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ProfileStore(tmp_path / "profiles")

    def key(path: Path) -> Any:
        with open_model(path, threads=1) as model:
            return Learned(model, 1, store).key({})

    first = key(folder)
    assert key(folder) == first
    assert first.kernels == f"onnxruntime {onnxruntime.__version__} cpu"
    assert key(tiny_path("llama", context_length=512)).model != first.model
    monkeypatch.setattr("edge_conflayers.onnx.runtime.VERSION", "9.9")
    assert key(folder).kernels == "onnxruntime 9.9 cpu"
    monkeypatch.undo()
    changed(folder, lambda model: model.metadata_props.add(key="x", value="y"))
    assert key(folder).model != first.model
    data = folder / "onnx" / "model.onnx_data"
    before = model_fingerprint(folder)
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    assert model_fingerprint(folder) != before


def test_the_configuration_is_for_others(folder: Path) -> None:
    """Our own session reads the graph's metadata and the vocabulary, not the JSON files."""
    for name in ("config.json", "genai_config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps({}))
    open_model(folder, threads=1).close()
