"""The drop-in for ``llama_cpp.Llama``, beyond what is compared with it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from installed import PACKAGE
from steps import TinyPath, random_tokens

from edge_conflayers import BadInput, Llama
from edge_conflayers.engine.native import binding_module

OPTIONS: dict[str, Any] = {"verbose": False, "fresh": True, "n_threads": 1, "seed": 5}


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture
def llm(path: Path) -> Iterator[Llama]:
    with Llama(path, n_ctx=2048, method="lookup", **OPTIONS) as found:
        yield found


def text(found: Any) -> str:
    answer: str = found["choices"][0]["text"]
    return answer


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, edge_conflayers; edge_conflayers.__dir__(); "
        "print(len([n for n in sys.modules if n.startswith(('numpy', 'llama', 'jinja2'))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE)
    assert done.stdout.strip() == "0", done.stderr


def test_arguments_without_a_meaning_are_accepted_and_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "edge_conflayers"):
        # LangChain gives all of these
        Llama(path, **OPTIONS, n_parts=-1, f16_kv=True, use_mlock=False, vocab_only=False).close()
        assert not caplog.records
        Llama(path, **OPTIONS, use_mlock=True, n_batch=256).close()
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Llama(use_mlock=True) changes nothing here",
        "Llama(n_batch=256) changes nothing here",
    ]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"n_ctxx": 5}, "has no argument 'n_ctxx'; did you mean 'n_ctx'"),
        ({"kv_overrides": {"a": 1}}, "takes no kv_overrides here"),
        ({"type_k": 99}, "type_k is 99"),
        ({"rope_scaling_type": 7}, "no rope_scaling_type 7"),
        ({"method": "nonsense"}, "there is no method"),
    ],
)
def test_what_it_cannot_serve_is_refused_in_one_line(
    path: Path, more: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        Llama(path, **{**OPTIONS, **more})
    assert isinstance(raised.value, BadInput) and "\n" not in str(raised.value)


def test_errors_are_the_ones_that_callers_catch(path: Path, tmp_path: Path, llm: Llama) -> None:
    with pytest.raises(ValueError, match="Model path does not exist"):
        Llama(tmp_path / "missing.gguf", **OPTIONS)
    with pytest.raises(ValueError, match="exceed context window of 2048"):
        llm(random_tokens(llm._generator.model, 2048))
    with pytest.raises(ValueError, match="grammar"):
        llm("a", grammar="nonsense")
    with pytest.raises(ValueError, match="embedding=True"):
        llm.embed("a")
    with pytest.raises(ValueError, match="filling in the middle"):
        llm("a", suffix="b")
    with pytest.raises(ValueError, match="no role"):
        llm.chat_format = "chat_template.default"
        llm.create_chat_completion([{"content": "a"}])


def test_a_text_goes_on_as_long_as_there_is_room(llm: Llama) -> None:
    prompt = random_tokens(llm._generator.model, 2000)
    found: Any = llm(prompt, max_tokens=None, temperature=0.0)
    assert found["usage"] == {
        "prompt_tokens": 2000,
        "completion_tokens": 48,
        "total_tokens": 2048,
    }
    assert found["choices"][0]["finish_reason"] == "length"


def test_seeds_are_derived_from_the_models(path: Path) -> None:
    texts = []
    for _ in range(2):
        with Llama(path, **OPTIONS) as llm:
            texts.append([text(llm("a b", max_tokens=12, temperature=1.5)) for _ in range(2)])
    assert texts[0] == texts[1] and texts[0][0] != texts[0][1]


def test_a_restored_state_changes_time_and_not_the_text(llm: Llama) -> None:
    prompt = random_tokens(llm._generator.model, 700)
    expected = text(llm(prompt, max_tokens=20, temperature=0.0))
    state = llm.save_state()
    assert state.n_tokens == len(state.input_ids) == llm.n_tokens
    llm(random_tokens(llm._generator.model, 30, seed=3), max_tokens=5)
    assert llm._generator.held(prompt) == 0
    llm.load_state(state)
    assert llm._generator.held(prompt) == 699
    assert text(llm(prompt, max_tokens=20, temperature=0.0)) == expected
    llm.reset()
    assert llm.n_tokens == 0


def test_a_cache_of_states_is_used(llm: Llama) -> None:
    cache = binding_module("llama_cache").LlamaRAMCache()
    llm.set_cache(cache)
    prompts = [random_tokens(llm._generator.model, 600, seed=seed) for seed in (1, 2)]
    first = [text(llm(prompt, max_tokens=8, temperature=0.0)) for prompt in prompts]
    assert cache.cache_size > 0
    llm._look_up(prompts[0])
    assert llm._generator.held(prompts[0]) == 599
    again = [text(llm(prompt, max_tokens=8, temperature=0.0)) for prompt in prompts]
    assert again == first


def test_the_callers_own_functions_are_asked(llm: Llama) -> None:
    prompt = random_tokens(llm._generator.model, 30) * 2
    plain = list(llm.generate(prompt, temp=0.0))[:20]
    seen: list[int] = []

    def third(tokens: Any, logits: Any) -> bool:
        assert tokens[:60].tolist() == prompt and logits.argmax() == tokens[-1]
        seen.append(len(tokens) - 60)
        return len(tokens) == 63

    found: Any = llm(prompt, max_tokens=20, temperature=0.0, stopping_criteria=[third])
    assert seen == [1, 2, 3] and found["usage"]["completion_tokens"] == 3
    assert found["choices"][0]["finish_reason"] == "stop"

    def never(tokens: Any, logits: Any) -> Any:
        logits[plain[0]] = -np.inf
        return logits

    assert plain[0] not in list(llm.generate(prompt, temp=0.0, logits_processor=[never]))[:20]


def test_grammars_of_any_llama_cpp_are_taken_by_their_text(llm: Llama) -> None:
    grammar = 'root ::= "yes" | "no"'
    for each in (
        grammar,
        SimpleNamespace(_grammar=grammar),
        binding_module("llama_grammar").LlamaGrammar.from_string(grammar),
    ):
        assert text(llm("a", grammar=each, max_tokens=8)) in ("yes", "no")


def test_handlers_of_llama_cpp_python_serve_chat_formats(llm: Llama) -> None:
    llm.chat_format = "chatml"
    found: Any = llm.create_chat_completion(
        [{"role": "user", "content": "a"}], max_tokens=4, temperature=0.0
    )
    assert found["choices"][0]["message"]["role"] == "assistant"
    assert found["usage"]["completion_tokens"] <= 4


def test_handlers_of_images_are_refused(llm: Llama) -> None:
    llm.chat_handler = SimpleNamespace(clip_model_path="mmproj.gguf")  # as Llava15ChatHandler
    with pytest.raises(ValueError, match=r"images need llama\.cpp's mtmd"):
        llm.create_chat_completion([{"role": "user", "content": "a"}])


def test_only_the_vocabulary(path: Path) -> None:
    with Llama(path, vocab_only=True, verbose=False) as llm:
        assert llm.detokenize(llm.tokenize(b"hello")).strip() == b"hello"
        with pytest.raises(ValueError, match="only the vocabulary"):
            llm("a")


def test_one_that_nobody_closes_keeps_what_it_learned(path: Path, tmp_path: Path) -> None:
    code = f"""
from edge_conflayers import Llama
llm = Llama({str(path)!r}, n_ctx=256, n_threads=1, verbose=False)
llm("one two three one two three", max_tokens=40, temperature=0.0)
"""
    env = {**os.environ, "EDGE_CONFLAYERS_DATA": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PACKAGE, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert list(tmp_path.rglob("*.json"))


def test_a_closed_one_says_so(path: Path) -> None:
    llm = Llama(path, **OPTIONS)
    llm.close()
    llm.close()
    with pytest.raises(BadInput, match="closed"):
        llm("a")
