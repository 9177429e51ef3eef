"""Writes an answer that is asked for, as the OpenAI API returns it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge_conflayers.completions import openai
from edge_conflayers.completions.chat import ChatRequest
from edge_conflayers.completions.openai import Header, LogprobsTable, Response
from edge_conflayers.completions.request import Piece, TextRequest
from edge_conflayers.completions.tool_calls import ToolCallReader
from edge_conflayers.engine.language_model import LanguageModel

Write = Callable[[TextRequest], Iterator[Piece]]


def answer(write: Write, model: LanguageModel, request: ChatRequest, header: Header) -> Response:
    """An answer, once it is written.

    Args:
        write: writes its text (``writing.write`` for a generator).

    Raises:
        as ``write`` does.
    """
    text = openai.completion(
        header,
        write(request.text),
        prompt_tokens=len(request.text.prompt),
        logprobs=_table(model, request),
    )
    if request.forced is not None:
        forced: Response = openai.forced_call(request.forced, text, stream=False)
        return forced
    found = openai.chat_completion(text)
    content = text["choices"][0]["text"]
    if request.must_call and (calls := request.forced_calls(content)):
        return openai.with_calls(found, "", calls)
    if (reader := request.reader()) is not None:
        shown = reader.feed(content)
        rest, calls = reader.end()
        if calls:
            return openai.with_calls(found, (shown + rest).strip(), calls)
    return found


def answer_chunks(
    write: Write, model: LanguageModel, request: ChatRequest, header: Header
) -> Iterator[Response]:
    """An answer while it is written."""
    pieces = write(request.text)
    if request.forced is not None:
        text = openai.completion_chunks(header, pieces, _table(model, request))
        yield from openai.forced_call(request.forced, text, stream=True)
    elif request.must_call:
        yield from _required(header, pieces, request)
    elif (reader := request.reader()) is not None:
        yield from _with_tools(header, pieces, reader, _table(model, request))
    else:
        text = openai.completion_chunks(header, pieces, _table(model, request))
        yield from openai.chat_chunks(text)


def _required(header: Header, pieces: Iterator[Piece], request: ChatRequest) -> Iterator[Response]:
    yield header.of_chat({"role": "assistant"})
    calls = request.forced_calls("".join(piece.text for piece in pieces))
    yield from openai.call_chunks(header, calls)


def _with_tools(
    header: Header,
    pieces: Iterator[Piece],
    reader: ToolCallReader,
    logprobs: LogprobsTable | None,
) -> Iterator[Response]:
    yield header.of_chat({"role": "assistant"})
    reason = None
    for piece in pieces:
        reason = piece.finish_reason
        row = None
        if logprobs is not None and piece.token is not None:
            row = logprobs.add(piece.token, piece.logprobs)
        if (shown := reader.feed(piece.text)) or row is not None:
            yield header.of_chat({"content": shown}, logprobs=row)
    rest, calls = reader.end()
    if rest:
        yield header.of_chat({"content": rest})
    if calls:
        yield from openai.call_chunks(header, calls)
    else:
        yield header.of_chat({}, reason)


def _table(model: LanguageModel, request: ChatRequest) -> LogprobsTable | None:
    if request.text.logprobs is None:
        return None
    return LogprobsTable(model, len(request.text.prompt))
