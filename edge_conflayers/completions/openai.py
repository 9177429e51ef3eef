"""Texts as the OpenAI API and llama-cpp-python return them.

A text's dictionaries are made here; those of chat completions come from them by llama-cpp-python's
own functions, so that their shapes are its.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_conflayers.completions.logprobs import prompt_logprobs
from edge_conflayers.completions.request import Piece, TokenLogprobs
from edge_conflayers.completions.tool_calls import ToolCall
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.native import binding_module, llama

Response = dict[str, Any]


def new_id() -> str:
    """An id of a text."""
    return f"cmpl-{uuid.uuid4()}"


@dataclass
class Header:
    """What all dictionaries of a text have in common.

    Attributes:
        model: its name.
        id: of the text.
        created: Unix time in seconds.
    """

    model: str
    id: str = field(default_factory=new_id)
    created: int = field(default_factory=lambda: int(time.time()))

    def of_text(
        self, text: str, logprobs: Response | None = None, finish_reason: str | None = None
    ) -> Response:
        """A dictionary for a text, or for a piece of one."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [
                {
                    "text": text,
                    "index": 0,
                    "logprobs": logprobs,
                    "finish_reason": finish_reason,
                }
            ],
        }

    def of_chat(
        self, delta: Response, finish_reason: str | None = None, logprobs: Response | None = None
    ) -> Response:
        """A dictionary for a piece of an answer.

        Args:
            logprobs: of its tokens, as for ``of_text``.
        """
        convert = binding_module("llama_chat_format")._convert_text_completion_logprobs_to_chat
        return {
            "id": "chat" + self.id,
            "model": self.model,
            "created": self.created,
            "object": "chat.completion.chunk",
            "choices": [
                {
                    "index": 0,
                    "delta": delta,
                    "logprobs": convert(logprobs),
                    "finish_reason": finish_reason,
                }
            ],
        }


def usage(prompt_tokens: int, completion_tokens: int) -> Response:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class LogprobsTable:
    """Logprobs of a text's tokens as a completion has them.

    Args:
        offset: characters before the text.
    """

    def __init__(self, model: LanguageModel, offset: int) -> None:
        self._model = model
        self._bytes = b""
        self._offset = offset
        self.columns: Response = {
            "tokens": [],
            "text_offset": [],
            "token_logprobs": [],
            "top_logprobs": [],
        }

    def add(self, token: int, found: TokenLogprobs | None) -> Response:
        """Adds a token; returns the table of that token alone.

        Args:
            found: None for a text's first token, which follows nothing.
        """
        name = self._name(token)
        top = None
        if found is not None:
            top = {self._name(each): logprob for each, logprob in found.top}
            top[name] = found.logprob
        row = {
            "tokens": name,
            "text_offset": self._offset + len(self._bytes.decode("utf-8", errors="ignore")),
            "token_logprobs": None if found is None else found.logprob,
            "top_logprobs": top,
        }
        self._bytes += self._model.piece(token)
        for key, value in row.items():
            self.columns[key].append(value)
        return {key: [value] for key, value in row.items()}

    def add_prompt(
        self, prompt: Sequence[int], top: int, threads: int, *, as_text: bool = True
    ) -> None:
        """Adds a prompt that is part of the text. Its first token follows nothing.

        Args:
            top: how many of the likeliest tokens to tell at each place.
            threads: CPU threads; the prompt is read once more.
            as_text: leave out a token that was put before a prompt given as text.

        Raises:
            BadInput: no memory for a context of its own.
        """
        found = prompt_logprobs(self._model, prompt, top, threads)
        begins = llama.llama_vocab_bos(self._model.vocab)
        skipped = int(as_text and prompt[0] == begins)
        for token, each in zip(prompt[skipped:], [None, *found[skipped:]], strict=False):
            self.add(token, each)

    def _name(self, token: int) -> str:
        return self._model.piece(token).decode("utf-8", errors="ignore")


def completion(
    header: Header,
    pieces: Iterable[Piece],
    *,
    prompt_tokens: int,
    before: str = "",
    after: str = "",
    logprobs: LogprobsTable | None = None,
) -> Response:
    """A text, once it is written.

    Args:
        prompt_tokens: of the prompt.
        before, after: texts around it, such as the prompt that is to be echoed.
        logprobs: takes those of its tokens; None for none.
    """
    text, count, reason = "", 0, None
    for piece in pieces:
        text += piece.text
        count += piece.token is not None
        reason = piece.finish_reason
        if logprobs is not None and piece.token is not None:
            logprobs.add(piece.token, piece.logprobs)
    found = header.of_text(
        before + text + after, None if logprobs is None else logprobs.columns, reason
    )
    return {**found, "usage": usage(prompt_tokens, count)}


def completion_chunks(
    header: Header, pieces: Iterable[Piece], logprobs: LogprobsTable | None = None
) -> Iterator[Response]:
    """A text while it is written: a dictionary for each piece that shows anything, and one for its
    end."""
    for piece in pieces:
        row = None
        if logprobs is not None and piece.token is not None:
            row = logprobs.add(piece.token, piece.logprobs)
        if piece.text or row is not None:
            yield header.of_text(piece.text, row)
        if piece.finish_reason is not None:
            yield header.of_text("", None, piece.finish_reason)


def chat_completion(text: Response) -> Response:
    """A completion as an answer."""
    found: Response = binding_module("llama_chat_format")._convert_completion_to_chat(text)
    return found


def chat_chunks(chunks: Iterator[Response]) -> Iterator[Response]:
    """A completion's pieces as an answer's."""
    found: Iterator[Response] = binding_module("llama_chat_format")._convert_completion_to_chat(
        chunks, stream=True
    )
    return found


def forced_call(name: str, text: Any, *, stream: bool) -> Any:
    """A completion, or the pieces of one, as the call of one tool whose arguments it is."""
    convert = binding_module("llama_chat_format")._convert_completion_to_chat_function
    found = convert(name, text, stream)
    return _named_once(found) if stream else found


def _named_once(chunks: Iterator[Response]) -> Iterator[Response]:
    """The pieces of a call with its name and id in the first alone, as in OpenAI's API: clients put
    the pieces of names together, too."""
    named = False
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        if delta["tool_calls"] and named:
            piece = {"arguments": delta["tool_calls"][0]["function"]["arguments"]}
            delta["function_call"] = piece
            delta["tool_calls"] = [{"index": 0, "function": piece}]
        named = named or bool(delta["tool_calls"])
        yield chunk


def with_calls(answer: Response, content: str, calls: Sequence[ToolCall]) -> Response:
    """An answer that calls tools."""
    choice = answer["choices"][0]
    listed = _listed(answer, calls)
    message = {"role": "assistant", "content": content or None, "tool_calls": listed}
    choice = {**choice, "message": message, "finish_reason": "tool_calls"}
    return {**answer, "choices": [choice]}


def call_chunks(header: Header, calls: Sequence[ToolCall]) -> Iterator[Response]:
    """The calls at the end of a streamed answer."""
    for i, call in enumerate(_listed({"id": "chat" + header.id}, calls)):
        yield header.of_chat({"tool_calls": [{"index": i, **call}]})
    yield header.of_chat({}, "tool_calls")


def _listed(answer: Response, calls: Sequence[ToolCall]) -> list[Response]:
    text_id = answer["id"].removeprefix("chat")
    return [
        {
            "id": f"call__{i}_{call.name}_{text_id}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(calls)
    ]
