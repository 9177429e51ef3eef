"""Which tools an answer calls, as the templates of the usual models have them write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_conflayers.stop_strings import StopStrings


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        arguments: JSON.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class Format:
    """How models write calls.

    Attributes:
        begin: what calls begin with, by which a template also shows that its model writes so.
        tokens: names of special tokens that are part of it.
    """

    begin: str
    tokens: tuple[str, ...] = ()


def _deepseek(name: str) -> str:
    return f"<\uff5ctool▁{name}\uff5c>"


FORMATS = (
    # Hermes, Qwen 2.5 and 3, SmolLM 2 and 3
    Format("<tool_call>", ("<tool_call>", "</tool_call>")),
    # Mistral
    Format("[TOOL_CALLS]", ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")),
    # Phi 4, Granite
    Format("<|tool_call|>", ("<|tool_call|>", "<|/tool_call|>")),
    # DeepSeek
    Format(
        _deepseek("calls▁begin"),
        tuple(
            _deepseek(each)
            for each in ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")
        ),
    ),
    # Llama 3
    Format("<|python_tag|>", ("<|python_tag|>",)),
)
# An answer that begins so may be a call and nothing else, as Llama 3 writes it, and weak models
# whatever their template says.
_BARE = ("{", "[", "```")

# Qwen 3 Coder
_XML_CALL = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_XML_ARGUMENT = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
# Mistral since 2025: name[ARGS]{...}; DeepSeek: name, and JSON in a code block
_NAMED = re.compile(
    r"([\w.-]+)(?:\[CALL_ID\][\w-]+)?\s*(?:\[ARGS\]|\n```(?:json)?\n)?\s*(?=\{)", re.DOTALL
)


def formats_of(template: str | None) -> tuple[Format, ...]:
    """How a model writes calls, by its chat template."""
    return tuple(each for each in FORMATS if each.begin in (template or ""))


class ToolCallReader:
    """Divides an answer, as it comes in pieces, into text and calls.

    Args:
        formats: how the model writes calls.
        tools: by name; calls of others are text.
        most: calls that are taken; None for all.
    """

    def __init__(
        self, formats: Sequence[Format], tools: Mapping[str, Any], most: int | None = None
    ) -> None:
        self._tools = tools
        self._most = most
        self._may_be_bare = True
        self._begins = StopStrings([each.begin for each in formats])
        self._text = ""
        self._shown = 0  # characters of it

    def feed(self, text: str) -> str:
        """Takes the next piece of an answer; returns what of it is text for sure."""
        self._text += text
        if self._may_be_bare:
            begun = self._text.lstrip()
            if begun.startswith(_BARE) or any(each.startswith(begun) for each in _BARE):
                return ""
            self._may_be_bare, text = False, self._text
        shown = self._begins.feed(text)
        self._shown += len(shown)
        return shown

    def end(self) -> tuple[str, list[ToolCall]]:
        """What is left of the text, and the calls."""
        held = self._text[self._shown :]
        calls = [call for call in parse_calls(held) if call.name in self._tools]
        return ("", calls[: self._most]) if calls else (held, [])


def parse_calls(text: str) -> list[ToolCall]:
    """The calls in a text, in whichever of the formats."""
    if found := _XML_CALL.findall(text):
        return [
            ToolCall(name, _json({key: _value(each) for key, each in _XML_ARGUMENT.findall(body)}))
            for name, body in found
        ]
    calls = [ToolCall(*call) for value in _json_values(text) for call in _calls_in(value)]
    if calls:
        return calls
    decoder = json.JSONDecoder()
    for named in _NAMED.finditer(text):
        try:
            arguments, _ = decoder.raw_decode(text, named.end())
        except ValueError:
            continue
        calls.append(ToolCall(named[1], _json(arguments)))
    return calls


def _json_values(text: str) -> Iterator[Any]:
    """The outermost JSON objects and arrays in a text, in order."""
    decoder = json.JSONDecoder()
    at = 0
    while found := re.compile(r"[{\[]").search(text, at):
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.end()
            continue
        yield value


def _calls_in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _calls_in(each)
    elif isinstance(value, dict):
        if isinstance(inner := value.get("function"), dict):
            value = inner
        name = value.get("name")
        arguments = value.get("arguments", value.get("parameters"))
        if isinstance(name, str) and arguments is not None:
            yield name, arguments if isinstance(arguments, str) else _json(arguments)


def _value(text: str) -> Any:
    """An argument of the XML form: JSON where it is some, else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
