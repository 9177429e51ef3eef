"""The promise with adapters, scaled positions, other caches and further samplers: the text is plain
decoding's, and drafts are accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lora import write_lora
from steps import RealModel, TinyPath, random_tokens
from test_exit_methods import check as check_exits
from test_identity import LETTERS, PROMPTS, REPEATING, SAMPLERS, check

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_options import Lora, ModelOptions
from edge_conflayers.text_generator import TextGenerator

YARN: dict[str, Any] = {
    **{"rope_scaling_type": "yarn", "rope_freq_scale": 0.25, "yarn_orig_ctx": 256},
    "yarn_beta_fast": 16.0,
}
CACHES: tuple[dict[str, Any], ...] = (
    {"type_k": "q8_0", "type_v": "q8_0"},
    {"type_k": "f16", "type_v": "q4_0"},
)
MORE_SAMPLERS: dict[str, dict[str, Any]] = {
    "dry": {"dry_multiplier": 0.8, "dry_allowed_length": 1},
    "xtc": {"temperature": 0.9, "seed": 5, "xtc_probability": 0.5, "xtc_threshold": 0.1},
    "typical": {"temperature": 0.9, "seed": 6, "typical_p": 0.8, "top_n_sigma": 2.0},
    "greedy-xtc": {"seed": 7, "xtc_probability": 0.3},
    "penalties": {
        **{"presence_penalty": 0.4, "frequency_penalty": 0.2, "repeat_last_n": 16},
        **{"temperature": 0.7, "logit_bias": {270: 3.0}},
    },
}
DRAFTERS = ("scripted", "trees", "eager", "auto", "bridged")


@pytest.fixture(params=["lora", "yarn", "cache-1", "all"])
def options(request: pytest.FixtureRequest, tiny_path: TinyPath, tmp_path: Path) -> ModelOptions:
    """Options for the tiny llama of these tests."""
    name = request.param
    given: dict[str, Any] = {}
    if name in ("lora", "all"):
        write_lora(tmp_path / "lora.gguf", tiny_path("llama", **TINY))
        given["lora"] = (Lora(tmp_path / "lora.gguf", 0.7),)
    if name in ("yarn", "all"):
        given |= YARN
    if name.startswith("cache"):
        given |= CACHES[int(name[-1])]
    if name == "all":
        given |= CACHES[0]
    return ModelOptions(**given)


TINY: dict[str, Any] = {"n_layer": 6, "n_embd": 128, "layer_gain": 0.1, "quant": "q8_0"}


@pytest.fixture
def model(tiny_path: TinyPath, options: ModelOptions) -> Iterator[Model]:
    with Model(tiny_path("llama", **TINY), options=options) as model:
        yield model


@pytest.mark.parametrize("sampler", ["greedy", "sampled"])
def test_models_with_options(model: Model, sampler: str) -> None:
    settings = SAMPLERS[sampler]
    if sampler == "sampled":
        settings = {**settings, "logit_bias": LETTERS}
    check(model, random_tokens(model, 225), settings, 40, DRAFTERS, {})


def test_early_exits_of_models_with_options(model: Model) -> None:
    check_exits(model, random_tokens(model, 20), {}, 30)


@pytest.mark.parametrize("sampler", MORE_SAMPLERS)
def test_more_samplers(tiny_path: TinyPath, sampler: str) -> None:
    with Model(tiny_path("llama", **TINY)) as model:
        drafters = ("scripted", "trees", "auto")
        check(model, random_tokens(model, 90), MORE_SAMPLERS[sampler], 60, drafters, {})


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_real_models_with_all_options(real_model: RealModel, tmp_path: Path, name: str) -> None:
    path = real_model(name).path
    write_lora(tmp_path / "lora.gguf", path, size=0.01)
    options = ModelOptions(lora=(Lora(tmp_path / "lora.gguf"),), **YARN, **CACHES[0])
    with Model(path, options=options) as model:
        for text, kind in ((PROMPTS[0], {}), (REPEATING, MORE_SAMPLERS["dry"])):
            prompt = model.tokenize(text)
            check(
                model, prompt, kind, 40, ("scripted", "conflayers", "trees", "auto", "lookup"), {}
            )


@pytest.mark.model
def test_texts_with_an_adapter_are_the_adapters(real_model: RealModel, tmp_path: Path) -> None:
    """The method of the command line, which learns as it goes; what it learns is kept apart."""
    path = real_model("smollm2-135m").path
    write_lora(tmp_path / "lora.gguf", path, size=0.02)
    options = ModelOptions(lora=(Lora(tmp_path / "lora.gguf"),))
    texts = {}
    for method in ("plain", "auto"):
        for given in (None, options):
            with TextGenerator(path, method=method, options=given, threads=2, fresh=True) as writer:
                prompt = writer.model.tokenize(REPEATING)
                texts[method, given is None] = list(writer.generate(prompt, max_tokens=40))
    assert texts["auto", True] == texts["plain", True]
    assert texts["auto", False] == texts["plain", False] != texts["plain", True]
