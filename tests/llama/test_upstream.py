"""llama-cpp-python's documented examples run through both classes, with equal results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from installed import PACKAGE
from steps import RealModel

from edge_conflayers.bench.upstream_client import find_library
from edge_conflayers.engine import native
from edge_conflayers.errors import BadInput

EXAMPLES = Path(__file__).with_name("examples.py")
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
SAMPLED_ALIKE = (
    *("text", "completion", "sampled", "sampled again", "penalties", "mirostat", "mirostat 1"),
    *("biased", "tokens", "logprobs", "generated", "steps"),
)


def upstream_library() -> Path:
    """The unpatched library, or else ours, which runs upstream's kernels when told to."""
    try:
        return find_library(None)
    except BadInput:
        return Path(native.LIBRARY._name).parent


def run(model: Path, package: str, folder: Path) -> dict[str, Any]:
    binding = Path(native.binding_modules()[""].__file__ or "").parent.parent
    paths = {"llama_cpp": binding, "edge_conflayers": PACKAGE}
    env = {**os.environ, "PYTHONPATH": str(paths[package]), "EDGE_CONFLAYERS_DATA": str(folder)}
    if package == "llama_cpp":
        env |= {"LLAMA_CPP_LIB_PATH": str(upstream_library()), "ECL_KERNELS": "upstream"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES), str(model), package],
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=MODELS)
def results(
    request: pytest.FixtureRequest, real_model: RealModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    path = real_model(request.param).path
    folder = tmp_path_factory.mktemp("examples")
    return run(path, "llama_cpp", folder), run(path, "edge_conflayers", folder)


def shape(value: Any) -> Any:
    """The keys and kinds of a result; of lists, those of the first."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def nearly(value: Any) -> Any:
    """A result without its id, time and the like; numbers compare as nearly the same."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("id", "created", "model")}
        return {key: nearly(each) for key, each in kept.items()}
    if isinstance(value, list):
        return [nearly(each) for each in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


def plain(value: Any) -> Any:
    """A result without its id, time and the like."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("id", "created", "model")}
    return [plain(each) for each in value] if isinstance(value, list) else value


def streamed(chunks: list[Any]) -> str:
    return "".join(
        choice.get("text") or choice.get("delta", {}).get("content") or ""
        for chunk in chunks
        for choice in chunk["choices"]
    )


@pytest.mark.model
def test_results_have_the_same_shape(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    theirs, ours = results
    assert theirs.keys() == ours.keys()
    for name, their in theirs.items():
        if name in ("stream", "chat stream", "tool stream"):
            for place in (0, 1, -1):
                assert shape(ours[name][place]) == shape(their[place]), (name, place)
        elif name not in ("logprobs", "echoed logprobs"):
            assert shape(ours[name]) == shape(their), name


@pytest.mark.model
def test_texts_are_the_same(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    theirs, ours = results
    for name in (*SAMPLED_ALIKE, "grammar", "chat", "chat logprobs", "about"):
        assert plain(ours[name]) == nearly(theirs[name]), name
    for name in ("stream", "chat stream"):
        assert streamed(ours[name]) == streamed(theirs[name]), name
        assert plain(ours[name][-1]) == nearly(theirs[name][-1]), name


@pytest.mark.model
def test_what_must_follow_a_schema_does(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    _, ours = results
    answer = json.loads(ours["json schema"]["choices"][0]["message"]["content"])
    assert isinstance(answer["team_name"], str)
    call = ours["tool"]["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "UserDetail"
    assert json.loads(call["arguments"]).keys() == {"name", "age"}
    pieces = [
        call["function"]["arguments"]
        for chunk in ours["tool stream"]
        for call in chunk["choices"][0]["delta"].get("tool_calls") or ()
    ]
    assert "".join(pieces) == call["arguments"]


@pytest.mark.model
def test_embeddings_are_the_same(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    theirs, ours = results
    assert plain(ours["embeddings"]) == nearly(theirs["embeddings"])
