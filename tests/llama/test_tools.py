"""Tools and the ``openai`` package's types, with a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from steps import RealModel

from edge_conflayers import Llama

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris? Call the tool."}]


@pytest.fixture(scope="module")
def llm(real_model: RealModel) -> Iterator[Llama]:
    path = real_model("qwen2.5-coder-0.5b").path
    with Llama(path, n_ctx=1024, verbose=False, fresh=True) as found:
        yield found


def call_of(message: Any) -> tuple[str, Any]:
    (call,) = message["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


@pytest.mark.model
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_tool_is_called_and_its_answer_read(llm: Llama, choice: str) -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "temperature": 0.0, "max_tokens": 64}
    answer: Any = llm.create_chat_completion(ASK, tool_choice=choice, **options)
    message = answer["choices"][0]["message"]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert call_of(message) == ("get_weather", {"city": "Paris"})
    result = {
        "role": "tool",
        "tool_call_id": message["tool_calls"][0]["id"],
        "content": '{"sky": "green"}',
    }
    after: Any = llm.create_chat_completion(
        [*ASK, message, result], tools=[WEATHER], tool_choice="none", max_tokens=8
    )
    assert after["choices"][0]["message"]["content"]
    prompt = llm._generator.model.text(llm._generator.session().tokens)
    assert '<tool_response>\n{"sky": "green"}' in prompt and "</tools>" not in prompt


@pytest.mark.model
@pytest.mark.parametrize("tools", [None, [WEATHER]])
def test_the_openai_package_takes_what_is_returned(llm: Llama, tools: Any) -> None:
    pytest.importorskip("openai")
    options: dict[str, Any] = {"max_tokens": 48, "tools": tools, "temperature": 0.0}
    answer = llm.create_chat_completion_openai_v1(ASK, **options)
    chunks = list(llm.create_chat_completion_openai_v1(ASK, stream=True, **options))
    choice = answer.choices[0]
    if choice.message.tool_calls:
        names = [c.function.name for c in choice.message.tool_calls]
        streamed = [c for each in chunks for c in each.choices[0].delta.tool_calls or ()]
        assert [c.function.name for c in streamed] == names
    else:
        text = "".join(each.choices[0].delta.content or "" for each in chunks)
        assert text == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason
