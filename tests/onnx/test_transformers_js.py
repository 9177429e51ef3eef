"""Exported folders in transformers.js on Node and in ONNX Runtime Web, against llama.cpp."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gguf_models import dequantized
from llama_tokenizer import LlamaTokenizer
from onnx_texts import MESSAGES, PROMPTS, TINY_TIE, assert_follows, rendered
from steps import ModelAt, RealModel, TinyPath, open_session, step
from tokenizer_corpus import corpus

from edge_conflayers.onnx.architecture import ARCHITECTURES
from edge_conflayers.onnx.export import TARGETS, Target, export
from edge_conflayers.onnx.weights import Precision

NODE = shutil.which("node")
SCRIPTS = Path(__file__).with_name("node")

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="Node is missing; install it (Debian: nodejs)"),
    pytest.mark.skipif(
        not (SCRIPTS / "node_modules" / "@huggingface" / "transformers").is_dir(),
        reason="transformers.js is missing; run `npm install` in tests/onnx/node",
    ),
]


def run(
    folder: Path,
    *,
    texts: list[str],
    prompts: tuple[str, ...] = (),
    n: int = 0,
    chat: bool = True,
) -> dict[str, Any]:
    """What generate.mjs finds in a folder."""
    wanted = {"texts": texts, "prompts": prompts, "n": n, "messages": MESSAGES if chat else []}
    found: dict[str, Any] = node("generate.mjs", folder, wanted)
    return found


def node(script: str, folder: Path, given: object) -> Any:
    found = subprocess.run(
        [str(NODE), str(SCRIPTS / script), str(folder)],
        input=json.dumps(given),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tiny_models(
    arch: str, target: Target, tiny_path: TinyPath, model_at: ModelAt, tmp_path: Path
) -> None:
    path = tiny_path(arch)
    export(path, tmp_path / "out", target=target, precision="fp32")
    texts = corpus()[::10]
    found = run(tmp_path / "out", texts=texts, prompts=PROMPTS, n=24)
    compared = [
        assert_follows(model_at(path), prompt, tokens, 24, tie=TINY_TIE)
        for prompt, tokens in zip(PROMPTS, found["generated"], strict=True)
    ]
    assert sum(compared) > 36
    assert found["chat"] == rendered(model_at(path))
    with LlamaTokenizer(path) as llama:
        for text, tokens in zip(texts, found["tokens"], strict=True):
            assert tokens == llama.encode(text, special=True), ascii(text)


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m"])
def test_real_models(name: str, real_model: RealModel, model_at: ModelAt, tmp_path: Path) -> None:
    path = real_model(name).path
    export(path, tmp_path / "out", precision="fp32" if name == "smollm2-135m" else "keep")
    texts = corpus()
    prompts = PROMPTS if name == "smollm2-135m" else ()
    wanted = rendered(real_model(name))
    found = run(tmp_path / "out", texts=texts, prompts=prompts, n=32, chat=bool(wanted))
    assert found["chat"] == wanted
    with LlamaTokenizer(path) as llama:
        for text, tokens in zip(texts, found["tokens"], strict=True):
            assert tokens == llama.encode(text, special=True), ascii(text)
    if not prompts:
        return
    reference = model_at(dequantized(path, tmp_path / "f32.gguf"))
    for prompt, tokens in zip(prompts, found["generated"], strict=True):
        assert assert_follows(reference, prompt, tokens, 32) > 8


@pytest.mark.parametrize("precision", ["keep", "fp32"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_graph_runs_in_web_assembly(
    target: Target,
    precision: Precision,
    tiny_path: TinyPath,
    model_at: ModelAt,
    tmp_path: Path,
) -> None:
    path = tiny_path("llama")
    export(path, tmp_path / "out", target=target, precision=precision)
    tokens = model_at(path).tokenize(PROMPTS[0])
    found = node("web.mjs", tmp_path / "out", tokens)
    with open_session(model_at(path), n_ctx=512) as session:
        logits = step(session, tokens)
    assert len(found) == len(tokens)
    for row, token in zip(logits, found, strict=True):
        assert row.max() - row[token] < TINY_TIE
