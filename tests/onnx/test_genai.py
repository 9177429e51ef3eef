"""Exported folders in ONNX Runtime GenAI, against llama.cpp on the same weights as float32."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from gguf_models import dequantized
from llama_tokenizer import LlamaTokenizer
from onnx_texts import MESSAGES, PROMPTS, TINY_TIE, assert_follows, rendered
from steps import ModelAt, RealModel, TinyPath
from tokenizer_corpus import CODE, EMOJI, NUMBERS, SCRIPTS, corpus

from edge_conflayers.onnx.architecture import ARCHITECTURES
from edge_conflayers.onnx.export import TARGETS, Target, export

genai = pytest.importorskip(
    "onnxruntime_genai", reason="run `pip install onnxruntime-genai` to test with it"
)


def has_control_characters(text: str) -> bool:
    return any(unicodedata.category(each) == "Cc" and each not in "\t\n\r" for each in text)


def generate(model: Any, tokens: list[int], n: int) -> list[int]:
    """The likeliest n tokens after a prompt, fewer if the text ends."""
    settings = genai.GeneratorParams(model)
    settings.set_search_options(max_length=len(tokens) + n)
    generator = genai.Generator(model, settings)
    generator.append_tokens(tokens)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(tokens) :]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tiny_models(
    arch: str, target: Target, tiny_path: TinyPath, model_at: ModelAt, tmp_path: Path
) -> None:
    path = tiny_path(arch)
    export(path, tmp_path / "out", target=target, precision="fp32")
    model = genai.Model(str(tmp_path / "out"))
    reference = model_at(path)
    compared = 0
    for prompt in PROMPTS:
        found = generate(model, reference.tokenize(prompt), 24)
        compared += assert_follows(reference, prompt, found, 24, tie=TINY_TIE)
    assert compared > 36


@pytest.mark.model
def test_a_real_model(real_model: RealModel, model_at: ModelAt, tmp_path: Path) -> None:
    smol = real_model("smollm2-135m")
    export(smol.path, tmp_path / "out", precision="fp32")
    model = genai.Model(str(tmp_path / "out"))
    tokenizer = genai.Tokenizer(model)
    reference = model_at(dequantized(smol.path, tmp_path / "f32.gguf"))
    for prompt in PROMPTS:
        tokens = [int(token) for token in tokenizer.encode(prompt)]
        assert tokens == smol.tokenize(prompt)
        found = generate(model, tokens, 32)
        assert assert_follows(reference, prompt, found, 32) > 8
        assert tokenizer.decode(found) == smol.text(found)
    chat = tokenizer.apply_chat_template(messages=json.dumps(MESSAGES), add_generation_prompt=True)
    assert chat == rendered(smol)


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m"])
def test_tokens(name: str, real_model: RealModel, tmp_path: Path) -> None:
    export(real_model(name).path, tmp_path / "out")
    tokenizer = genai.Tokenizer(genai.Model(str(tmp_path / "out")))
    tokenizer.update_options(add_special_tokens="true")

    def same(text: str) -> bool:
        return [int(each) for each in tokenizer.encode(text)] == llama.encode(text, special=True)

    with LlamaTokenizer(tmp_path / "out" / "vocabulary.gguf") as llama:
        for text in (*CODE, *SCRIPTS, *EMOJI, *NUMBERS):
            # Its tables lack Georgian capitals.
            assert same(text) or "\u1c90" in text, ascii(text)
        # It takes C strings, and U+0085 for no white space.
        texts = [text for text in corpus() if not has_control_characters(text)]
        wrong = [text for text in texts if not same(text)]
    assert len(texts) > 1000
    assert len(wrong) <= len(texts) // 100, list(map(ascii, wrong))
