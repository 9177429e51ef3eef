"""The server used by the ``openai`` package's further methods, and by LangChain where that is
installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel, Field
from served import Server, environment, serving
from steps import RealModel, TinyPath

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server(tiny_path: TinyPath, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tiny_path("llama", n_layer=4, layer_gain=0.2)
    with serving(tmp_path_factory.mktemp("data"), path, "-np", 2, "-t", 1) as found:
        yield found
    assert found.process.returncode == 0 and not found.errors


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as found:
        yield found


def test_choices_models_and_embeddings(client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    asked: dict[str, Any] = {"model": model, "temperature": 1.2, "seed": 4}
    answers = client.chat.completions.create(messages=HELLO, n=3, max_tokens=8, **asked)
    assert [each.index for each in answers.choices] == [0, 1, 2]
    assert len({each.message.content for each in answers.choices}) == 3
    texts = client.completions.create(
        prompt=["a", "b"], max_tokens=4, logprobs=2, echo=True, **asked
    )
    assert len(texts.choices) == 2 and texts.choices[1].text.startswith("b")
    assert texts.choices[0].logprobs and texts.choices[0].logprobs.token_logprobs
    # It asks for base64, and decodes that.
    vectors = client.embeddings.create(model=model, input=["a", "b"]).data
    assert len(vectors) == 2 and isinstance(vectors[0].embedding[0], float)


def test_streamed_logprobs(client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 6, "temperature": 0}
    asked |= {"logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.logprobs and whole.logprobs.content and len(whole.logprobs.content) == 6
    assert all(each.top_logprobs for each in whole.logprobs.content)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    told = [
        each.logprob
        for chunk in chunks
        for choice in chunk.choices
        for each in (choice.logprobs.content or () if choice.logprobs else ())
    ]
    assert told == [each.logprob for each in whole.logprobs.content]


class Capital(BaseModel):
    """The capital of a country."""

    city: str = Field(max_length=12)


@pytest.mark.model
def test_parsed_answers_and_streams_that_are_put_together(
    real_model: RealModel, tmp_path: Path
) -> None:
    path = real_model("qwen2.5-coder-0.5b").path
    tool = openai.pydantic_function_tool(Capital)
    with (
        serving(tmp_path, path, "-c", 1024) as server,
        openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client,
    ):
        asked: dict[str, Any] = {
            "model": client.models.list().data[0].id,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 48,
        }
        parsed = client.chat.completions.parse(**asked, response_format=Capital)
        assert parsed.choices[0].message.parsed == Capital(city="Paris")
        # The package puts the pieces of names and ids together, too.
        with client.chat.completions.stream(
            **asked,
            tools=[tool],
            tool_choice={"type": "function", "function": {"name": "Capital"}},
        ) as stream:
            final = stream.get_final_completion()
        (call,) = final.choices[0].message.tool_calls or ()
        assert call.function.name == "Capital" and call.function.parsed_arguments == Capital(
            city="Paris"
        )


LANGCHAIN = """
import sys
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

where = dict(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
chat = ChatOpenAI(
    model="MODEL", temperature=0, seed=1, max_tokens=48, stream_usage=True, **where
)
answer = chat.invoke("What is the capital of France? Answer in one word.")
assert "Paris" in answer.content and answer.usage_metadata["output_tokens"] > 0, answer
whole = None
for chunk in chat.stream("What is the capital of France? Answer in one word."):
    whole = chunk if whole is None else whole + chunk
assert whole.content == answer.content and whole.usage_metadata["total_tokens"] == (
    answer.usage_metadata["total_tokens"]
)
several = ChatOpenAI(model="MODEL", temperature=1.0, seed=1, n=2, max_tokens=12, **where)
found = several.generate([[HumanMessage("Say a colour.")]])
assert len(found.generations[0]) == 2
known = chat.bind(logprobs=True, top_logprobs=2).invoke("Hi")
assert known.response_metadata["logprobs"]["content"]

@tool
def get_weather(city: str) -> str:
    "Get the current weather in a city."
    return "green"

ask = HumanMessage("What is the weather in Paris? Call the tool.")
for choice in (None, "auto", "any", "required", "get_weather", True):
    able = chat.bind_tools([get_weather], tool_choice=choice, parallel_tool_calls=False)
    called = able.invoke([ask])
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"}), (choice, called)
    whole = None
    for chunk in able.stream([ask]):
        whole = chunk if whole is None else whole + chunk
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [(call["name"], call["args"])]
able = chat.bind_tools([get_weather])
assert able.invoke([ask, called, ToolMessage("green", tool_call_id=call["id"])]).type == "ai"

class Capital(BaseModel):
    "The capital of a country."
    city: str = Field(max_length=12)

for method in ("function_calling", "json_schema", "json_mode"):
    structured = chat.with_structured_output(Capital, method=method)
    question = 'What is the capital of France? Answer as JSON: {"city": ...}'
    assert structured.invoke(question).city == "Paris", method
texts = OpenAI(model="MODEL", temperature=0, max_tokens=8, n=1, **where)
assert len(texts.generate(["One, two,", "The capital of France is"]).generations) == 2
vectors = OpenAIEmbeddings(model="MODEL", check_embedding_ctx_length=False, **where)
assert len(vectors.embed_documents(["a", "b"])) == 2
"""


@pytest.mark.model
def test_langchain(real_model: RealModel, tmp_path: Path) -> None:
    if find_spec("langchain_openai") is None:
        pytest.skip("langchain_openai is not installed")
    path = real_model("qwen2.5-coder-0.5b").path
    with serving(tmp_path, path, "-c", 2048) as server:
        done = subprocess.run(
            [sys.executable, "-c", LANGCHAIN.replace("MODEL", path.stem), server.url],
            capture_output=True,
            text=True,
            env=environment(tmp_path),
            timeout=500,
        )
    assert done.returncode == 0, done.stderr[-3000:]
