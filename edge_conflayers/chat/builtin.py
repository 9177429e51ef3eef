"""Chat templates by the names that llama.cpp has for them, rendered by llama.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

from edge_conflayers.chat.messages import Message
from edge_conflayers.chat.options import TemplateOptions
from edge_conflayers.chat.template import ChatTemplate
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """llama.cpp's built-in templates, such as "chatml" and "llama3"."""
    n = llama.llama_chat_builtin_templates(None, 0)
    found = (ctypes.c_char_p * n)()
    llama.llama_chat_builtin_templates(found, n)
    return tuple(sorted(name.decode() for name in found if name is not None))


def builtin_template(name: str, options: TemplateOptions) -> BuiltinTemplate:
    """The template of that name.

    Raises:
        BadInput: there is none, or options that it has no use for.
    """
    if name not in names():
        raise BadInput(
            f"there is no chat template {name!r}: give a file, a template in Jinja, or one of"
            f" {', '.join(names())}"
        )
    return BuiltinTemplate(name, options)


class BuiltinTemplate(ChatTemplate):
    """A template that llama.cpp has by name.

    Args:
        name: of ``names``.
        options: whose variables and tools it has no use for.

    Raises:
        BadInput: there are any.
    """

    def __init__(self, name: str, options: TemplateOptions) -> None:
        self._source = ""
        self._name = name
        for what, given in (("template-kwargs", options.kwargs), ("tools", options.tools)):
            if given:
                raise BadInput(
                    f"the chat template {name!r} is llama.cpp's own and takes no {what};"
                    " give a template in Jinja"
                )

    def _text(
        self, messages: Sequence[Message], contents: Sequence[str], as_parts: Sequence[int]
    ) -> str:
        if as_parts:
            raise BadInput(f"the chat template {self._name!r} takes no lists of parts")
        chat = (llama.llama_chat_message * len(messages))()
        for each, message, content in zip(chat, messages, contents, strict=True):
            each.role, each.content = message["role"].encode(), _encoded(content)
        room = 0
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = llama.llama_chat_apply_template(
                self._name.encode(), chat, len(messages), True, buffer, room
            )
            if n < 0:
                raise BadInput(f"llama.cpp cannot write these messages as {self._name!r}")
            if n <= room:
                return buffer.raw[:n].decode("utf-8", errors="replace")
            room = n


def _encoded(text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput("a message holds half a character; mend it") from None
    if b"\0" in data:
        raise BadInput("a message holds a NUL character, at which llama.cpp would end it")
    return data
