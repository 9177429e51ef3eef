"""Calls of tools in answers, as the templates of the usual models have them written."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.completions.tool_calls import ToolCallReader, formats_of, parse_calls

BAR = "\uff5c"
CALL = {"name": "weather", "arguments": {"city": "Łódź", "days": 2}}
ANSWERS = {
    "hermes": ("<tool_call>", f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"),
    "smollm": ("<tool_call>", f"<tool_call>[{json.dumps(CALL)}]</tool_call>"),
    "qwen3-coder": (
        "<tool_call>",
        "<tool_call>\n<function=weather>\n<parameter=city>\nŁódź\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
    ),
    "mistral": ("[TOOL_CALLS]", f"[TOOL_CALLS] [{json.dumps(CALL)}]"),
    "mistral-2025": ("[TOOL_CALLS]", f"[TOOL_CALLS]weather[ARGS]{json.dumps(CALL['arguments'])}"),
    "phi": ("<|tool_call|>", f"<|tool_call|>[{json.dumps(CALL)}]<|/tool_call|>"),
    "deepseek": (
        f"<{BAR}tool▁calls▁begin{BAR}>",
        f"<{BAR}tool▁calls▁begin{BAR}><{BAR}tool▁call▁begin{BAR}>function<{BAR}tool▁sep{BAR}>"
        f"weather\n```json\n{json.dumps(CALL['arguments'])}\n```<{BAR}tool▁call▁end{BAR}>",
    ),
    "llama-3": (
        "nothing of the kind",
        json.dumps({"name": "weather", "parameters": CALL["arguments"]}),
    ),
    "qwen-coder": ("<tool_call>", f"```json\n{json.dumps(CALL)}\n```"),
}


@pytest.mark.parametrize("kind", ANSWERS)
@given(data=st.data())
def test_a_call_is_found_however_the_answer_is_cut(kind: str, data: st.DataObject) -> None:
    sign, answer = ANSWERS[kind]
    before = (
        ""
        if kind in ("llama-3", "qwen-coder")
        else data.draw(st.sampled_from(["", "I will look. "]))
    )
    text = before + answer
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    reader = ToolCallReader(formats_of(f"a template with {sign}"), {"weather": {}})
    edges = [0, *cuts, len(text)]
    shown = "".join(reader.feed(text[a:b]) for a, b in itertools.pairwise(edges))
    rest, calls = reader.end()
    assert (shown, rest) == (before, "")
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather", CALL["arguments"])
    ]


def test_several_calls_are_all_found() -> None:
    other = {"name": "time", "arguments": {}}
    text = "".join(f"<tool_call>{json.dumps(each)}</tool_call>\n" for each in (CALL, other))
    assert [call.name for call in parse_calls(text)] == ["weather", "time"]


@pytest.mark.parametrize(
    "text",
    [
        "No tool is needed.",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        "<tool_call>not JSON</tool_call>",
        '{"weather": "fine"}',
        "```python\nweather()\n```",
        "[1, 2]",
        "a < b, and <tool",
        "",
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    for sign in ("<tool_call>", ""):
        reader = ToolCallReader(formats_of(sign), {"weather": {}})
        shown = "".join(reader.feed(letter) for letter in text)
        rest, calls = reader.end()
        assert calls == [] and shown + rest == text


@given(st.text())
def test_nothing_makes_it_fail(text: str) -> None:
    parse_calls("<tool_call>" + text)
    parse_calls('{"name": "a", "arguments": ' + text)
