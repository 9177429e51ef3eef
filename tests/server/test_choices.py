"""Several texts for a request, and OpenAI's further settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from steps import TinyPath

from edge_conflayers.completions.logprobs import prompt_logprobs
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.generating import generate
from edge_conflayers.profiles import ProfileStore
from edge_conflayers.server.app import make_app
from edge_conflayers.server.opening import Opening, open_service
from edge_conflayers.server.options import ServerOptions
from edge_conflayers.server.serving import ServedModel
from edge_conflayers.text_generator import TextGenerator

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
SAMPLED: dict[str, Any] = {"max_tokens": 12, "temperature": 1.2, "seed": 41}


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=4, layer_gain=0.2)


@pytest.fixture(scope="module")
def served(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, ServedModel]]:
    store = ProfileStore(tmp_path_factory.mktemp("profiles"))
    opening = Opening(parallel=2, n_ctx=1024, threads=1, method="lookup", profiles=store)
    with open_service({"tiny": path}, opening, ServerOptions()) as service:
        yield TestClient(make_app(service)), service.model("tiny")


@pytest.fixture(scope="module")
def client(served: tuple[TestClient, ServedModel]) -> TestClient:
    return served[0]


def post(client: TestClient, place: str, **body: Any) -> Any:
    found = client.post(place, json=body)
    assert found.status_code == 200, found.text
    return found.json()


def streamed(client: TestClient, place: str, **body: Any) -> list[Any]:
    found = client.post(place, json={"stream": True, **body})
    lines = [line.removeprefix("data: ") for line in found.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def alone(path: Path, prompts: list[str], seeds: list[int]) -> list[str]:
    """The texts as a plain generator writes them."""
    with TextGenerator(path, method="plain", n_ctx=1024, threads=1, fresh=True) as one:
        return [
            generate(one, prompt, max_tokens=12, sampling=SamplerSettings(temperature=1.2, seed=s))
            for prompt in prompts
            for s in seeds
        ]


def test_each_choice_is_the_text_of_a_seed_of_its_own(client: TestClient, path: Path) -> None:
    expected = alone(path, ["hello"], [41, 42, 43])
    assert len(set(expected)) == 3
    found = post(client, COMPLETIONS, prompt="hello", n=3, **SAMPLED)
    assert [each["text"] for each in found["choices"]] == expected
    assert [each["index"] for each in found["choices"]] == [0, 1, 2]
    assert [each["edge_conflayers"]["seed"] for each in found["choices"]] == [41, 42, 43]
    assert all(each["timings"]["predicted_n"] == 12 for each in found["choices"])
    assert "timings" not in found and "edge_conflayers" not in found
    one = post(client, COMPLETIONS, prompt="hello", **SAMPLED)
    assert found["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert found["usage"]["completion_tokens"] == 36
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + 36


def test_several_prompts_are_as_if_each_came_alone(client: TestClient, path: Path) -> None:
    prompts = ["hello", "one two three"]
    expected = alone(path, prompts, [41, 42])
    found = post(client, COMPLETIONS, prompt=prompts, n=2, best_of=2, **SAMPLED)
    assert [each["text"] for each in found["choices"]] == expected
    assert [each["index"] for each in found["choices"]] == [0, 1, 2, 3]
    tokens = [
        post(client, "/tokenize", content=each, add_special=True)["tokens"] for each in prompts
    ]
    again = post(client, COMPLETIONS, prompt=tokens, n=2, **SAMPLED)
    assert [each["text"] for each in again["choices"]] == expected
    assert again["usage"]["prompt_tokens"] == sum(map(len, tokens))


@pytest.mark.parametrize("place", [CHAT, COMPLETIONS])
def test_streamed_choices_are_the_same(client: TestClient, place: str) -> None:
    asked = {**SAMPLED, **({"messages": HELLO} if place == CHAT else {"prompt": ["a", "b"]})}
    whole = post(client, place, n=2, **asked)
    chunks = streamed(client, place, n=2, stream_options={"include_usage": True}, **asked)
    usage = chunks.pop()
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert usage["object"] == chunks[0]["object"] and usage["id"] == chunks[0]["id"]
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        piece = choice["delta"].get("content", "") if place == CHAT else choice["text"]
        texts[choice["index"]] = texts.get(choice["index"], "") + piece
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
            assert chunk["timings"]["predicted_n"] and chunk["edge_conflayers"]["seed"] >= 41
    kept = {
        each["index"]: each["message"]["content"] if place == CHAT else each["text"]
        for each in whole["choices"]
    }
    assert texts == kept and len(texts) == (2 if place == CHAT else 4)
    assert reasons == {each["index"]: each["finish_reason"] for each in whole["choices"]}


def test_a_prompts_own_logprobs(client: TestClient, path: Path) -> None:
    """As lm-evaluation-harness asks for them: tokens, echoed, with one token after them."""
    tokens = post(client, "/tokenize", content="one two three four", add_special=True)["tokens"]
    asked: dict[str, Any] = {"logprobs": 2, "echo": True, "temperature": 0}
    with Model(path) as model:
        expected = [each.logprob for each in prompt_logprobs(model, tokens, 2, 1)]
    for most in (0, 1):
        found = post(client, COMPLETIONS, prompt=[tokens], max_tokens=most, **asked)
        table = found["choices"][0]["logprobs"]
        assert len(table["tokens"]) == len(tokens) + most
        assert table["token_logprobs"][0] is None and table["top_logprobs"][0] is None
        assert np.allclose(table["token_logprobs"][1 : len(tokens)], expected, atol=1e-4)
        assert found["usage"]["completion_tokens"] == most
        text = found["choices"][0]["text"]
        assert text.startswith("".join(table["tokens"][: len(tokens)]))
        assert "one two three four" in text
    chunks = streamed(client, COMPLETIONS, prompt="one two", max_tokens=3, **asked)
    (first,) = chunks[0]["choices"]
    assert first["text"] == "one two" and len(first["logprobs"]["tokens"]) >= 2
    whole = post(client, COMPLETIONS, prompt="one two", max_tokens=3, **asked)["choices"][0]
    assert (
        first["logprobs"]["token_logprobs"]
        == (whole["logprobs"]["token_logprobs"][: len(first["logprobs"]["tokens"])])
    )
    parts = [chunk["choices"][0] for chunk in chunks]
    assert "".join(each["text"] for each in parts) == whole["text"]
    told = [p for each in parts for p in (each["logprobs"] or {}).get("token_logprobs", ())]
    assert told == whole["logprobs"]["token_logprobs"]


def test_what_openai_has_besides_is_no_fault(client: TestClient) -> None:
    plain = post(client, CHAT, messages=HELLO, max_tokens=6)
    more = post(
        client,
        CHAT,
        messages=HELLO,
        max_completion_tokens=6,
        max_tokens=None,
        user="somebody",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        response_format={"type": "text"},
        stop=None,
        n=1,
        parallel_tool_calls=True,
        prediction=None,
        safety_identifier="x",
        something_new=True,
    )
    assert more["choices"][0]["message"] == plain["choices"][0]["message"]


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_a_call_of_the_tools_that_are_allowed(client: TestClient) -> None:
    def choice(mode: str, *names: str) -> dict[str, Any]:
        named = [{"type": "function", "function": {"name": name}} for name in names]
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}

    asked: dict[str, Any] = {"messages": HELLO, "tools": [tool("one"), tool("two")]}
    asked |= {"max_tokens": 60, "temperature": 1.0}
    for seed in range(4):
        found = post(client, CHAT, tool_choice=choice("required", "two"), seed=seed, **asked)
        calls = found["choices"][0]["message"].get("tool_calls") or ()
        assert {call["function"]["name"] for call in calls} <= {"two"}
    for wrong in (
        choice("required", "three"),
        choice("nonsense", "one"),
        {"type": "allowed_tools"},
    ):
        assert client.post(CHAT, json={**asked, "tool_choice": wrong}).status_code == 400


def test_texts_are_embedded_by_the_model_that_writes(
    served: tuple[TestClient, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, model = served
    monkeypatch.setattr(
        "edge_conflayers.engine.native.llama.llama_model_load_from_file", None, raising=True
    )
    texts = ["hello there", "x", "one two three " * 60, *(f"text {i}" for i in range(80))]
    found = post(client, "/v1/embeddings", input=texts)
    vectors = np.array([each["embedding"] for each in found["data"]])
    assert vectors.shape == (83, model.model.n_embd)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # whatever else is embedded with it
    for place in (0, 2, 40):
        one = post(client, "/v1/embeddings", input=texts[place])["data"][0]["embedding"]
        assert np.allclose(one, vectors[place], atol=1e-5)
    assert found["usage"]["total_tokens"] == sum(
        len(post(client, "/tokenize", content=each, add_special=True)["tokens"]) for each in texts
    )
    error = client.post("/v1/embeddings", json={"input": [5, 6]}).json()["error"]
    assert "check_embedding_ctx_length=False" in error["message"]
