"""Messages of a conversation, as OpenAI's API has them: read from JSON, and put in one form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_conflayers.errors import BadInput

Message = Mapping[str, Any]
"""Has ``role`` and ``content``, a text; perhaps ``name``, ``tool_calls`` and the like."""

_WITHOUT_CONTENT = ("assistant",)  # that calls tools


def read_messages(text: str, what: str) -> list[Message]:
    """The messages in a text.

    Args:
        text: a JSON list of messages, an object with such a list as ``messages``, or JSON lines of
            one message each.
        what: the text is, for error messages.

    Raises:
        BadInput: none of these, or a message that cannot be used.
    """
    return normalized(_found(text, what), what)


def _found(text: str, what: str) -> list[Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = [_line(line, number, what) for number, line in _lines(text)]
    if isinstance(given, dict):
        given = given.get("messages", [given] if "role" in given else None)
    if not isinstance(given, list):
        raise BadInput(
            f'{what} holds no messages; give a JSON list such as [{{"role": "user", "content":'
            ' "Hello"}]'
        )
    return given


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip())


def _line(line: str, number: int, what: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what} is neither JSON nor JSON lines (line {number}: {error})") from None


def normalized(messages: Sequence[Any], what: str = "the conversation") -> list[Message]:
    """Messages with texts for contents: lists of text parts are joined, null is "", and arguments
    of tool calls that are written as JSON are read, as templates expect them.

    Args:
        what: holds them, for error messages.

    Raises:
        BadInput: there are none, or one cannot be used.
    """
    if not messages:
        raise BadInput(f"{what} holds no message; give at least one")
    return [_normalized(each, f"message {i} of {what}") for i, each in enumerate(messages, 1)]


def _normalized(message: Any, what: str) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadInput(f'{what} has no role; write it as {{"role": "user", "content": "Hello"}}')
    found = {**message, "content": _content(message, what)}
    if message.get("tool_calls") is not None:
        found["tool_calls"] = _tool_calls(message["tool_calls"], what)
    return found


def _content(message: Message, what: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message["role"] in _WITHOUT_CONTENT:
        return ""
    if not isinstance(content, list):
        raise BadInput(f"{what} has no text as its content; give one")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text" or not isinstance(text, str):
            raise BadInput(f"{what} has a part that is not text ({kind}); only text can be read")
        texts.append(text)
    return "".join(texts)


def _tool_calls(calls: Any, what: str) -> list[Any]:
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise BadInput(f"{what} has tool_calls that are no list of calls; mend them")
    found = []
    for call in calls:
        function = call.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
            try:
                arguments = json.loads(function["arguments"] or "{}")
            except (ValueError, RecursionError):
                arguments = function["arguments"]
            call = {**call, "function": {**function, "arguments": arguments}}
        found.append(call)
    return found


def other_texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, names of keys included, such as in tools or tool calls."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from other_texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from other_texts(each)
