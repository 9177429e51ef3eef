"""Messages, tools and response formats as requests, and answers as the OpenAI API has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from steps import Tiny

from edge_conflayers.completions.answers import answer, answer_chunks
from edge_conflayers.completions.chat import ChatRequest, chat_request
from edge_conflayers.completions.openai import Header
from edge_conflayers.completions.request import Piece, TextRequest, TokenLogprobs
from edge_conflayers.completions.schemas import closed
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.model import Model
from edge_conflayers.errors import BadInput

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
WITH_TOOLS = "{% if tools %}<tool_call> {{ tools | tojson }}\n{% endif %}" + PLAIN
HELLO = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


CLOSED = {**CITY, "additionalProperties": False}


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or CITY}}


def choose(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.fixture
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=2, seed=1)


def asked(model: Model, template: str = WITH_TOOLS, **options: Any) -> ChatRequest:
    return chat_request(model, HELLO, TextRequest(()), chat_template=template, **options)


def written(*texts: str, reason: Any = "stop") -> Any:
    """Writes a given text in place of a model's."""

    def write(request: TextRequest) -> Iterator[Piece]:
        for text in texts:
            yield Piece(text, 5, Stats())
        yield Piece("", None, Stats(), finish_reason=reason)

    return write


def test_tools_are_in_the_prompt_where_the_template_has_them(model: Model) -> None:
    without = asked(model).text.prompt
    with_tools = asked(model, tools=[tool("weather")]).text.prompt
    assert "weather" in model.text(with_tools) and len(with_tools) > len(without)
    assert asked(model, tools=[tool("weather")], tool_choice="none").text.prompt == without
    with pytest.raises(BadInput, match="has no place for tools"):
        asked(model, PLAIN, tools=[tool("weather")])
    forced = asked(model, PLAIN, tools=[tool("weather")], tool_choice=choose("weather"))
    assert json.loads(forced.text.sampling.json_schema or "") == CLOSED


def test_a_required_call_is_of_any_of_the_tools(model: Model) -> None:
    shared = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": CITY}}
    request = asked(model, tools=[tool("weather"), tool("deep", shared)], tool_choice="required")
    valid = Draft202012Validator(json.loads(request.text.sampling.json_schema or ""))
    for name, arguments, right in (
        ("weather", {"city": "Rome"}, True),
        ("deep", {"a": {"city": "Rome"}}, True),
        ("deep", {"a": {}}, False),
        ("weather", {}, False),
        ("other", {"city": "Rome"}, False),
    ):
        assert valid.is_valid({"name": name, "arguments": arguments}) == right
    other = {**shared, "$defs": {"A": {"type": "null"}}}
    with pytest.raises(BadInput, match="two tools define 'A'"):
        asked(model, tools=[tool("a", shared), tool("b", other)], tool_choice="required")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tools": [{"name": "weather"}]}, "a tool is"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [tool("a")], "tool_choice": choose("b")}, "'b', which is not among"),
        ({"tools": [tool("a")], "tool_choice": "must"}, "tool_choice is 'must'"),
        ({"response_format": {"type": "xml"}}, "type 'xml'"),
        ({"response_format": {"type": "json_schema"}}, 'needs {"json_schema"'),
    ],
)
def test_what_cannot_be_served_is_refused(model: Model, options: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        asked(model, **options)


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "schema": CITY}, CLOSED),
        ({"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}}, CLOSED),
    ],
)
def test_a_response_format_is_a_schema(model: Model, response_format: Any, schema: Any) -> None:
    found = asked(model, response_format=response_format).text.sampling.json_schema
    assert (found and json.loads(found)) == schema


def calls_of(chunks: Sequence[Any]) -> list[Any]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for chunk in chunks
        for call in chunk["choices"][0]["delta"].get("tool_calls") or ()
    ]


def test_an_answer_that_calls_tools(model: Model) -> None:
    request = asked(model, tools=[tool("weather")])
    write = written(
        "Let me see. <tool", '_call>{"name": "weather", "arg', 'uments": {"city": "R"}}'
    )
    found = answer(write, model, request, Header("m"))
    choice = found["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    (found_call,) = choice["message"]["tool_calls"]
    assert found_call["function"] == {"name": "weather", "arguments": '{"city": "R"}'}
    chunks = list(answer_chunks(write, model, request, Header("m")))
    assert calls_of(chunks) == [("weather", {"city": "R"})]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    shown = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert "".join(each or "" for each in shown) == "Let me see. "


def test_an_answer_that_calls_none(model: Model) -> None:
    request = asked(model, tools=[tool("weather")])
    write = written("It is ", "fine <too", " early>", reason="length")
    found = answer(write, model, request, Header("m"))
    assert found["choices"][0]["message"] == {
        "role": "assistant",
        "content": "It is fine <too early>",
    }
    assert found["choices"][0]["finish_reason"] == "length"
    chunks = list(answer_chunks(write, model, request, Header("m")))
    shown = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert "".join(each or "" for each in shown) == "It is fine <too early>"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_a_required_call_comes_as_one(model: Model) -> None:
    request = asked(model, tools=[tool("weather")], tool_choice="required")
    write = written('{"name": "weather", ', '"arguments": {"city": "Rome"}}')
    found = answer(write, model, request, Header("m"))
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    assert found["choices"][0]["message"]["content"] is None
    chunks = list(answer_chunks(write, model, request, Header("m")))
    assert calls_of(chunks) == [("weather", {"city": "Rome"})]


def test_only_the_first_of_several_calls_where_they_are_not_to_be_parallel(model: Model) -> None:
    texts = [f'<tool_call>{{"name": "weather", "arguments": {{"city": "{c}"}}}}' for c in "AB"]
    write = written(*texts)
    for parallel, expected in ((True, ["A", "B"]), (False, ["A"])):
        request = asked(model, tools=[tool("weather")], parallel_calls=parallel)
        found = answer(write, model, request, Header("m"))["choices"][0]["message"]["tool_calls"]
        cities = [json.loads(each["function"]["arguments"])["city"] for each in found]
        streamed = calls_of(list(answer_chunks(write, model, request, Header("m"))))
        assert cities == [arguments["city"] for _, arguments in streamed] == expected


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [choose(name) for name in names]},
    }


def test_only_the_tools_that_are_allowed_are_called(model: Model) -> None:
    tools = [tool("weather"), tool("news")]
    request = asked(model, tools=tools, tool_choice=allowed("auto", "news"))
    assert "weather" in model.text(request.text.prompt) and list(request.tools) == ["news"]
    write = written('<tool_call>{"name": "weather", "arguments": {"city": "R"}}')
    message = answer(write, model, request, Header("m"))["choices"][0]["message"]
    assert "tool_calls" not in message and "weather" in message["content"]
    must = asked(model, tools=tools, tool_choice=allowed("required", "news"))
    valid = Draft202012Validator(json.loads(must.text.sampling.json_schema or ""))
    assert valid.is_valid({"name": "news", "arguments": {"city": "R"}})
    assert not valid.is_valid({"name": "weather", "arguments": {"city": "R"}})
    for wrong in (allowed("must", "news"), allowed("auto", "sport"), {"type": "allowed_tools"}):
        with pytest.raises(BadInput, match="tool_choice"):
            asked(model, tools=tools, tool_choice=wrong)


def test_logprobs_come_with_the_pieces_of_an_answer_that_may_call(model: Model) -> None:
    request = asked(model, tools=[tool("weather")]).with_text(logprobs=1)

    def write(request: TextRequest) -> Iterator[Piece]:
        for token in (5, 6):
            noted = TokenLogprobs(token, -0.5, ((token, -0.5),))
            yield Piece("a", token, Stats(), logprobs=noted)
        yield Piece("", None, Stats(), finish_reason="stop")

    chunks = [each["choices"][0] for each in answer_chunks(write, model, request, Header("m"))]
    told = [t["logprob"] for each in chunks for t in (each["logprobs"] or {}).get("content", ())]
    assert told == [-0.5, -0.5]


def test_a_forced_call_names_itself_once(model: Model) -> None:
    request = asked(model, tools=[tool("weather")], tool_choice=choose("weather"))
    chunks = list(answer_chunks(written('{"ci', 'ty": ', '"R"}'), model, request, Header("m")))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [call for delta in deltas for call in delta["tool_calls"] or ()]
    assert "".join(call["function"].get("name", "") for call in calls) == "weather"
    assert "".join(call.get("id", "") for call in calls) == calls[0]["id"]
    text = "".join(call["function"]["arguments"] for call in calls)
    old = [delta["function_call"] for delta in deltas if delta["function_call"]]
    assert json.loads(text) == {"city": "R"} == json.loads("".join(e["arguments"] for e in old))
    assert sum("name" in each for each in old) == 1


def test_a_closed_schema_allows_nothing_that_the_given_one_forbids() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}}
    given = {
        "properties": {"one": inner, "open": {**inner, "additionalProperties": True}},
        "items": inner,
        "anyOf": [inner],
        "$defs": {"d": inner},
    }
    found = closed(given)
    assert "additionalProperties" not in found  # its anyOf may name further properties
    assert found["properties"]["one"] == {**inner, "additionalProperties": False}
    assert found["properties"]["open"]["additionalProperties"] is True
    assert found["$defs"]["d"] == found["items"] == found["anyOf"][0] == found["properties"]["one"]
    assert closed(True) is True
