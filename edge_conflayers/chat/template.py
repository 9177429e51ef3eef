"""Renders chat templates, and finds the messages' own texts in what was rendered.

A template is rendered twice: with the messages, and with a mark in place of each content. Where
the two differ by nothing but contents and marks, it is known to the character what is the
template's and what the user's.
"""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_conflayers.chat.messages import Message
from edge_conflayers.chat.options import TemplateOptions
from edge_conflayers.errors import BadInput, one_line

ROLES = ("system", "developer", "user", "assistant", "tool")
_MAY_BE_CUT = ("assistant",)  # templates leave out an answer's reasoning on purpose
_REASONING_END = "</think>"
_SWITCH = re.compile(r"/\w+")

MARK = "\U000f0002"
"""A private-use character, which templates neither trim nor escape, and no token's name holds."""

_MARK_BEGIN, _MARK_END = "\U000f0000", "\U000f0001"
_MARK_DIGITS = 0xF0010

_PART_SIGNS = ("'type': 'text'", '"type": "text"')  # of a list of parts, as Python or JSON

_Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """Messages in a template.

    Attributes:
        text: all of it.
        contents: where it holds the messages' own texts, as ascending [begin, end) of characters;
            None where the template changes them so that this cannot be told.
    """

    text: str
    contents: tuple[_Span, ...] | None


class ChatTemplate:
    """A chat template in Jinja.

    Args:
        name: whose it is, for messages.
        bos, eos: names of the tokens that begin and end a text.
        options: variables and tools that it is given.

    Raises:
        BadInput: it is not Jinja.
    """

    def __init__(
        self,
        source: str,
        *,
        name: str,
        bos: str = "",
        eos: str = "",
        options: TemplateOptions | None = None,
    ) -> None:
        self._source = source
        self._name = name
        options = options or TemplateOptions()
        self._given: dict[str, Any] = {
            "tools": list(options.tools) if options.tools else None,
            "documents": None,
            "bos_token": bos,
            "eos_token": eos,
            **options.kwargs,
        }
        try:
            self._template = _environment().from_string(source)
        except Exception as error:
            raise self._failed(error) from error

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Messages in the template, up to where the next answer starts.

        Messages whose text the template does not write out are given to it as lists of parts.

        Raises:
            BadInput: it fails or leaves a message out.
        """
        for message in messages:
            if message["role"] not in ROLES:
                raise BadInput(
                    f"there is no role {message['role']!r}; choose from {', '.join(ROLES)}"
                )
        try:
            rendered, left_out = self._rendered(messages, ())
            as_parts = left_out
        except BadInput:
            as_parts = tuple(range(len(messages)))
            try:
                rendered, left_out = self._rendered(messages, as_parts)
            except BadInput:
                as_parts, left_out = (), as_parts
            if left_out:  # parts do not help: the error is about the messages themselves
                raise
            return rendered
        if left_out:
            try:
                rendered, left_out = self._rendered(messages, as_parts)
            except BadInput:  # it takes no parts, so that this is not the reason
                raise self._left_out(messages[left_out[0]]["role"]) from None
        if left_out:
            raise self._left_out(messages[left_out[0]]["role"])
        return rendered

    def _rendered(
        self, messages: Sequence[Message], as_parts: Sequence[int]
    ) -> tuple[Rendered, tuple[int, ...]]:
        """The messages rendered, some as lists of parts, and which of them are left out."""
        contents = [message["content"] for message in messages]
        marks = [_mark(i, content) for i, content in enumerate(contents)]
        text = self._text(messages, contents, as_parts)
        try:
            marked = self._text(messages, marks, as_parts)
        except BadInput:  # it takes only certain texts
            marked = ""
        variants = [_variants(message) for message in messages]
        spans = _aligned(text, marked, marks, variants)
        if as_parts and any(sign in marked and sign not in self._source for sign in _PART_SIGNS):
            left_out = list(as_parts)  # it writes the lists themselves
        elif spans is not None:
            left_out = [i for i, mark in enumerate(marks) if mark not in marked]
        else:
            left_out = [
                i for i, each in enumerate(messages) if not self._written(each, text, marked)
            ]
            spans = _located(text, variants)
        needed = (
            i for i in left_out if contents[i].strip() and messages[i]["role"] not in _MAY_BE_CUT
        )
        return Rendered(text, None if spans is None else tuple(spans)), tuple(needed)

    def _written(self, message: Message, text: str, without: str) -> bool:
        """Whether a message is in a text, a system message perhaps without the switches that the
        template knows, such as SmolLM3's ``/no_think``."""
        if _holds(text, message, without):
            return True
        if message["role"] != "system":
            return False
        content = _SWITCH.sub(
            lambda switch: "" if switch[0] in self._source else switch[0], message["content"]
        )
        return not content.strip() or _holds(text, {**message, "content": content}, without)

    def _text(
        self, messages: Sequence[Message], contents: Sequence[str], as_parts: Sequence[int]
    ) -> str:
        given = []
        for i, (message, content) in enumerate(zip(messages, contents, strict=True)):
            parts = [{"type": "text", "text": content}]
            given.append({**message, "content": parts if i in as_parts else content})
        try:
            return self._template.render(
                {**self._given, "messages": given, "add_generation_prompt": True}
            )
        except Exception as error:  # a template is a program of the model's author
            raise self._failed(error, messages) from error

    def _failed(self, error: Exception, messages: Sequence[Message] = ()) -> BadInput:
        why = one_line(error) or type(error).__name__
        has_system = any(message["role"] == "system" for message in messages)
        advice = (
            "put the system message into the prompt or use --raw" if has_system else "use --raw"
        )
        return BadInput(f"the chat template of {self._name} fails: {why}; {advice}")

    def _left_out(self, role: str) -> BadInput:
        if role == "system":
            return BadInput(
                f"the chat template of {self._name} leaves out the system message (--system);"
                " put it into the prompt"
            )
        return BadInput(
            f"the chat template of {self._name} does not write out the {role}'s text; use --raw"
        )


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """What transformers renders chat templates with (its utils/chat_template_utils.py)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}``, which marks answers for training and changes nothing."""

    tags = {"generation"}  # noqa: RUF012  # declared so by the base class

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **settings)


def _mark(index: int, content: str) -> str:
    """Stands for a content, and is as long, so that a template that cuts one cuts the other."""
    number = "".join(chr(_MARK_DIGITS + int(digit)) for digit in str(index))
    fill = MARK * (len(content.strip()) - len(number) - 2)
    return f"{_MARK_BEGIN}{number}{fill}{_MARK_END}"


def _variants(message: Message) -> list[str]:
    """A content as templates may write it: trimmed, escaped, an answer without its reasoning."""
    content = message["content"]
    found = [content]
    if _REASONING_END in content and message["role"] in _MAY_BE_CUT:
        found.append(content.rpartition(_REASONING_END)[2])
    found += [
        html.escape(content, quote=True),
        html.escape(content, quote=False),
        json.dumps(content, ensure_ascii=False)[1:-1],
        json.dumps(content)[1:-1],
    ]
    trimmed = [(each, each.strip(), each.rstrip(), each.lstrip()) for each in found]
    return list(dict.fromkeys(variant for some in trimmed for variant in some))


def _aligned(
    text: str, marked: str, marks: Sequence[str], variants: Sequence[Sequence[str]]
) -> list[_Span] | None:
    """Where the contents are in ``text``, if it is ``marked`` with a variant of its content in
    place of each mark."""
    literals, owners = _split(marked, marks)
    if not text.startswith(literals[0]):
        return None
    # Of each mark, how the text so far can end: where, and the contents before. Variants of one
    # content differ by white space, so that there are few.
    ends: dict[int, list[_Span]] = {len(literals[0]): []}
    for owner, literal in zip(owners, literals[1:], strict=True):
        longer: dict[int, list[_Span]] = {}
        for at, spans in ends.items():
            for variant in variants[owner]:
                end = at + len(variant)
                if text.startswith(variant, at) and text.startswith(literal, end):
                    longer.setdefault(end + len(literal), [*spans, (at, end)])
        ends = longer
    return ends.get(len(text))


def _split(marked: str, marks: Sequence[str]) -> tuple[list[str], list[int]]:
    """The template's own parts of a text, and whose mark follows each of them but the last."""
    owner_of = {mark: i for i, mark in enumerate(marks)}
    literals, owners = [], []
    begin = at = 0
    while (at := marked.find(_MARK_BEGIN, at)) >= 0:
        end = marked.find(_MARK_END, at) + 1
        owner = owner_of.get(marked[at:end])
        if owner is None:  # cut
            at += 1
            continue
        literals.append(marked[begin:at])
        owners.append(owner)
        begin = at = end
    return [*literals, marked[begin:]], owners


def _located(text: str, variants: Sequence[Sequence[str]]) -> list[_Span] | None:
    """Where each content is in a text, in order, if each is there once."""
    spans: list[_Span] = []
    begin = 0
    for some in variants:
        once = (each for each in some if each and text.count(each) == 1)
        found = next((each for each in once if text.find(each, begin) >= 0), None)
        if found is None:
            return None
        at = text.index(found, begin)
        begin = at + len(found)
        spans.append((at, begin))
    return spans


def _holds(text: str, message: Message, without: str) -> bool:
    """Whether a text holds a message's content, trimmed, escaped, wrapped or in capitals.

    Args:
        without: the template's own text, which may hold the same words.
    """
    for variant in _variants(message):
        if variant and text.count(variant) > without.count(variant):
            return True
    letters = _letters(message["content"])
    return bool(letters) and _letters(text).count(letters) > _letters(without).count(letters)


def _letters(text: str) -> str:
    ignored = string.whitespace + string.punctuation
    return text.casefold().translate(dict.fromkeys(map(ord, ignored)))
