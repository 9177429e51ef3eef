"""Messages, tools and a response format as a request for a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_conflayers.chat import Message, TemplateOptions, chat_tokens
from edge_conflayers.completions.request import TextRequest
from edge_conflayers.completions.schemas import any_call, closed
from edge_conflayers.completions.tool_calls import (
    Format,
    ToolCall,
    ToolCallReader,
    formats_of,
    parse_calls,
)
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput


@dataclass(frozen=True)
class ChatRequest:
    """An answer that is asked for.

    Attributes:
        text: the request for its text.
        tools: that it may call, by name.
        forced: the tool whose arguments the text is, all of it.
        must_call: whether the text is one call, as JSON.
        formats: how the model writes calls, where it may.
        parallel_calls: whether it may call several at once; else the first call is taken.
    """

    text: TextRequest
    tools: Mapping[str, Any]
    forced: str | None = None
    must_call: bool = False
    formats: tuple[Format, ...] = ()
    parallel_calls: bool = True

    def with_text(self, **changes: Any) -> ChatRequest:
        """The same with fields of its ``text`` changed."""
        return replace(self, text=replace(self.text, **changes))

    def reader(self) -> ToolCallReader | None:
        """Divides the answer into text and calls as it comes; None if all of it is text."""
        forced = self.forced is not None or self.must_call
        if forced or not self.tools:
            return None
        return ToolCallReader(self.formats, self.tools, most=None if self.parallel_calls else 1)

    def forced_calls(self, text: str) -> list[ToolCall]:
        """The call that the whole text is."""
        if self.forced is not None:
            return [ToolCall(self.forced, text)]
        return parse_calls(text)


def chat_request(
    model: LanguageModel,
    messages: Sequence[Message],
    request: TextRequest,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_calls: bool = True,
    response_format: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> ChatRequest:
    """The request for an answer, by the model's chat template.

    Args:
        messages: with ``role`` and ``content``; content may be a list of texts.
        request: everything but the prompt, which is replaced.
        tools: functions that the answer may call, as the OpenAI API has them.
        tool_choice: "auto" (or None), "none", "required", the one that must be called, or those
            that may be, as OpenAI's "allowed_tools".
        parallel_calls: whether the answer may call several at once.
        response_format: ``{"type": "text"}``, "json_object" or "json_schema".
        chat_template: its source or name, in place of the model's own.
        template_kwargs: further variables of the template.

    Raises:
        BadInput: messages, tools or a format that cannot be served, or as ``chat_tokens``.
    """
    by_name = _by_name(tools or ()) if tool_choice != "none" else {}
    if isinstance(tool_choice, Mapping) and tool_choice.get("type") == "allowed_tools":
        tool_choice, by_name = _allowed(tool_choice, by_name)
    forced = _forced(tool_choice, by_name)
    must_call = tool_choice == "required"
    if must_call and not by_name:
        raise BadInput("tool_choice is 'required' and there are no tools; give some")
    template = chat_template or model.chat_template or ""
    knows_tools = "tools" in template
    if by_name and not knows_tools and forced is None and not must_call:
        raise BadInput(
            f"the chat template of {model.path} has no place for tools; name the one to call in"
            " tool_choice, leave them out, or use another model"
        )
    options = TemplateOptions(
        template=chat_template,
        kwargs=template_kwargs or {},
        tools=list(tools or ()) if by_name and knows_tools else None,
    )
    tokens = chat_tokens(model, [_of_today(each) for each in messages], options)
    sampling = _constrained(request.sampling, response_format)
    if forced is not None:
        sampling = _follow(sampling, by_name[forced].get("parameters") or {"type": "object"})
    elif must_call:
        sampling = _follow(sampling, any_call(by_name))
    formats = formats_of(template) if by_name and forced is None and not must_call else ()
    shown = request.shown | _tokens_named({name for each in formats for name in each.tokens}, model)
    return ChatRequest(
        replace(request, prompt=tokens, sampling=sampling, shown=shown),
        by_name,
        forced,
        must_call,
        formats,
        parallel_calls,
    )


def _by_name(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    try:
        return {each["function"]["name"]: each["function"] for each in tools}
    except (KeyError, TypeError):
        raise BadInput(
            'a tool is {"type": "function", "function": {"name": ..., "parameters": ...}}; write'
            " each so"
        ) from None


def _allowed(choice: Mapping[str, Any], tools: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Whether a tool must be called, and those that may be."""
    try:
        allowed = choice.get("allowed_tools", choice)
        names = [each.get("function", each)["name"] for each in allowed["tools"]]
        return allowed.get("mode", "auto"), {name: tools[name] for name in names}
    except (AttributeError, KeyError, TypeError):
        raise BadInput(
            'tool_choice of type "allowed_tools" needs {"allowed_tools": {"mode": ..., "tools":'
            " [...]}} with tools that are given; mend it"
        ) from None


def _forced(choice: str | Mapping[str, Any] | None, tools: Mapping[str, Any]) -> str | None:
    if choice is None or choice in ("auto", "none", "required"):
        return None
    try:
        name = choice["function"]["name"]  # type: ignore[index]
    except (KeyError, TypeError):
        raise BadInput(
            f"tool_choice is {choice!r}; give 'auto', 'none', 'required' or a function's name as"
            ' {"type": "function", "function": {"name": ...}}'
        ) from None
    if name not in tools:
        raise BadInput(f"tool_choice names {name!r}, which is not among the tools; add it")
    return str(name)


def _constrained(
    sampling: SamplerSettings, response_format: Mapping[str, Any] | None
) -> SamplerSettings:
    """The settings under a response format of the OpenAI API."""
    schema = response_schema(response_format)
    if schema is None:
        return sampling
    return replace(sampling, json_schema=schema, grammar=None, regex=None)


def response_schema(response_format: Mapping[str, Any] | None) -> str | None:
    """The JSON schema that a response format of the OpenAI API asks for; None for any text.

    Raises:
        BadInput: not such a format.
    """
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":  # with a schema, as llama-cpp-python has it
        return _closed(response_format.get("schema") or {"type": "object"})
    if kind == "json_schema":
        inner = response_format.get("json_schema")
        if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
            return _closed(inner["schema"])
        raise BadInput(
            'a response_format of type "json_schema" needs {"json_schema": {"schema": ...}}; add it'
        )
    raise BadInput(
        f"response_format has type {kind!r}; choose from 'text', 'json_object' and 'json_schema'"
    )


def _closed(schema: Any) -> str:
    return json.dumps(closed(schema))


def _follow(sampling: SamplerSettings, schema: Any) -> SamplerSettings:
    return replace(sampling, json_schema=_closed(schema), grammar=None, regex=None)


def _of_today(message: Message) -> Message:
    """A message with the role that a function's answer has had since there are tools."""
    is_answer = isinstance(message, Mapping) and message.get("role") == "function"
    return {**message, "role": "tool"} if is_answer else message


def _tokens_named(names: set[str], model: LanguageModel) -> frozenset[int]:
    """The special tokens of these names."""
    found = (model.tokenize(name, add_special=False, parse_special=True) for name in names)
    return frozenset(tokens[0] for tokens in found if len(tokens) == 1)
