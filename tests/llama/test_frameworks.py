"""The calls that LangChain, LlamaIndex, Haystack and outlines make, without these packages.

As in langchain-community 0.4 (``LlamaCpp``, ``ChatLlamaCpp``, ``LlamaCppEmbeddings``),
llama-index-llms-llama-cpp 0.7, llama-cpp-haystack 3 and outlines 1.3.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from steps import RealModel, TinyPath

from edge_conflayers import Llama

# What each gives the constructor where its user gives nothing but the model.
LANGCHAIN: dict[str, Any] = {
    "rope_freq_scale": 0.0,
    "rope_freq_base": 0.0,
    "lora_path": None,
    "lora_base": None,
    "n_ctx": 512,
    "n_parts": -1,
    "seed": -1,
    "f16_kv": True,
    "logits_all": False,
    "vocab_only": False,
    "use_mlock": False,
    "n_threads": None,
    "n_batch": 8,
    "use_mmap": True,
    "last_n_tokens_size": 64,
    "verbose": False,
}
LANGCHAIN_EMBEDDINGS: dict[str, Any] = {
    "n_ctx": 512,
    "n_parts": -1,
    "seed": -1,
    "f16_kv": False,
    "logits_all": False,
    "vocab_only": False,
    "use_mlock": False,
    "n_threads": None,
    "n_batch": 512,
    "verbose": False,
    "device": None,
}
LANGCHAIN_TEXT: dict[str, Any] = {
    "suffix": None,
    "max_tokens": 24,
    "temperature": 0.8,
    "top_p": 0.95,
    "logprobs": None,
    "echo": False,
    "repeat_penalty": 1.1,
    "top_k": 40,
    "stop": [],
}
LANGCHAIN_CHAT: dict[str, Any] = {
    key: LANGCHAIN_TEXT[key]
    for key in ("max_tokens", "temperature", "top_p", "top_k", "logprobs", "repeat_penalty", "stop")
}
ANSWER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "Answer",
        "description": "An answer with a reason.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "sure": {"type": "boolean"},
            },
            "required": ["city", "sure"],
        },
    },
}
QUESTION = [{"role": "user", "content": "Which city is the capital of France?"}]


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[Llama]:
    with Llama(str(path), **LANGCHAIN, fresh=True) as found:
        yield found


def test_constructors_with_the_frameworks_defaults_say_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    Llama(str(path), **LANGCHAIN, fresh=True).close()
    Llama(str(path), embedding=True, **LANGCHAIN_EMBEDDINGS, fresh=True).close()
    Llama(model_path=str(path), n_ctx=3900, verbose=False, fresh=True).close()  # LlamaIndex
    Llama(model_path=str(path), n_ctx=0, n_batch=512, verbose=False, fresh=True).close()  # Haystack
    assert not caplog.records and capfd.readouterr().err == ""
    with caplog.at_level(logging.WARNING):
        Llama(str(path), **{**LANGCHAIN, "n_batch": 64}, fresh=True).close()
    assert "n_batch=64" in caplog.text


def test_langchains_texts(llm: Llama) -> None:
    whole: Any = llm(prompt="one two one two", **{**LANGCHAIN_TEXT, "temperature": 0.0})
    parts = list(
        llm(prompt="one two one two", stream=True, **{**LANGCHAIN_TEXT, "temperature": 0.0})
    )
    # LangChain puts the texts together, and takes logprobs where there are some.
    assert "".join(part["choices"][0]["text"] for part in parts) == whole["choices"][0]["text"]  # type: ignore[index]
    assert all(part["choices"][0].get("logprobs") is None for part in parts)  # type: ignore[index]
    assert len(llm.tokenize(b"one two")) > 1


def test_langchains_chat_in_pieces(llm: Llama) -> None:
    """``ChatLlamaCpp`` streams unless a tool is forced."""
    chunks: Any = list(llm.create_chat_completion(messages=QUESTION, stream=True, **LANGCHAIN_CHAT))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant"} and deltas[-1] == {}
    assert all("content" in delta for delta in deltas[1:-1])
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_pieces_of_a_forced_call_can_be_put_together(llm: Llama) -> None:
    """LangChain and the ``openai`` package concatenate names and ids as well."""
    # LangChain's tool_choice=True gives the tool itself.
    chunks: Any = list(
        llm.create_chat_completion(
            messages=QUESTION, stream=True, tools=[ANSWER], tool_choice=ANSWER, **LANGCHAIN_CHAT
        )
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    old = [delta["function_call"] for delta in deltas if delta.get("function_call")]
    assert "".join(call["function"].get("name", "") for call in calls) == "Answer"
    assert "".join(each.get("name", "") for each in old) == "Answer"
    assert [call["index"] for call in calls] == [0] * len(calls)
    assert [call.get("id") for call in calls[1:]] == [None] * (len(calls) - 1) and calls[0]["id"]
    text = "".join(call["function"]["arguments"] for call in calls)
    assert text == "".join(each["arguments"] for each in old) and text.lstrip().startswith("{")


def test_langchains_embeddings(path: Path) -> None:
    with Llama(str(path), embedding=True, **LANGCHAIN_EMBEDDINGS, fresh=True) as llm:
        found = llm.create_embedding(["one two", "three"])
        assert len(found["data"]) == 2
        # It takes the first token's of a query.
        assert list(map(float, llm.embed("one two")[0]))


def test_llama_indexs_calls(llm: Llama) -> None:
    asked: dict[str, Any] = {"temperature": 0.1, "max_tokens": 12, "stream": False, "stop": ["\n"]}
    assert llm.context_params.n_ctx == 512
    raw: Any = llm(prompt="one two", **asked)
    assert isinstance(raw["choices"][0]["text"], str)
    asked["stream"] = True
    assert all(isinstance(each["choices"][0]["text"], str) for each in llm(prompt="a", **asked))  # type: ignore[index]


def test_haystacks_answers_of_functions(llm: Llama) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "function", "content": "Paris", "tool_call_id": "call_1"},
    ]
    found: Any = llm.create_chat_completion(messages=messages, max_tokens=4)
    choice = found["choices"][0]
    assert choice["index"] == 0 and choice["message"].get("tool_calls", []) == []
    assert {"id", "model", "created", "usage"} <= found.keys()


@pytest.mark.model
def test_a_tool_that_may_be_called_is_called_in_pieces(real_model: RealModel) -> None:
    """``ChatLlamaCpp(...).bind_tools([...])``, and ``with_structured_output``."""
    path = real_model("qwen2.5-coder-0.5b").path
    greedy = {**LANGCHAIN_CHAT, "temperature": 0.0, "max_tokens": 64, "repeat_penalty": 1.0}
    with Llama(str(path), **{**LANGCHAIN, "n_ctx": 1024}, fresh=True) as llm:
        chunks: Any = list(
            llm.create_chat_completion(
                messages=[{"role": "user", "content": "Call Answer with the capital of France."}],
                stream=True,
                tools=[ANSWER],
                tool_choice=None,
                **greedy,
            )
        )
        calls = [
            call
            for chunk in chunks
            for call in chunk["choices"][0]["delta"].get("tool_calls") or ()
        ]
        assert [call["function"]["name"] for call in calls] == ["Answer"]
        assert json.loads(calls[0]["function"]["arguments"])["city"] == "Paris"
        forced: Any = llm.create_chat_completion(
            messages=QUESTION, tools=[ANSWER], tool_choice=ANSWER, **greedy
        )
        (call,) = forced["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]).keys() == {"city", "sure"}


FILL: list[tuple[str, str]] = [
    ("def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"),
    ("for i in range(10):\n    ", "(i)\n"),
]


@pytest.mark.model
@pytest.mark.parametrize(("prefix", "suffix"), FILL)
def test_a_suffix_fills_in_the_middle(real_model: RealModel, prefix: str, suffix: str) -> None:
    path = real_model("qwen2.5-coder-0.5b").path
    with Llama(str(path), n_ctx=512, verbose=False, fresh=True) as llm:
        found: Any = llm(prefix, suffix=suffix, max_tokens=12, temperature=0.0)
        text = found["choices"][0]["text"]
        compile(prefix + text.split("\n")[0] + suffix, "filled", "exec")
        # It goes by the model's own tokens, whose names a prompt can give as well.
        named = f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
        same: Any = llm(named, max_tokens=12, temperature=0.0)
        assert same["choices"][0]["text"] == text and text.strip()
        llm.spm_infill = True
        assert (
            llm(prefix, suffix=suffix, max_tokens=4)["usage"]["prompt_tokens"]
            == (  # type: ignore[index]
                found["usage"]["prompt_tokens"]
            )
        )
