"""Requests as texts that are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_conflayers.completions import openai
from edge_conflayers.completions.answers import Write, answer, answer_chunks
from edge_conflayers.completions.chat import chat_request
from edge_conflayers.completions.openai import Header, LogprobsTable, Response
from edge_conflayers.completions.request import TextRequest
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput
from edge_conflayers.llama.prompts import infill_tokens
from edge_conflayers.server.bodies import ChatBody, CompletionBody, TextBody
from edge_conflayers.server.failures import TooLong

_COMPLETION_TOKENS = 16  # of a completion that does not say how many, as in OpenAI's API
_OWN_NAMES = SamplerSettings.__dataclass_fields__.keys() & TextBody.model_fields.keys()


@dataclass(frozen=True)
class Limits:
    """What a model's texts may be.

    Attributes:
        n_ctx: tokens of the context.
        max_tokens: most of a text; None for what fits in the context.
        sampling: settings that requests do not give, by the names of ``SamplerSettings``.
    """

    n_ctx: int
    max_tokens: int | None
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A text that is asked for, and how it is returned.

    Attributes:
        request: the text.
        header: of the dictionaries that are returned.
        responses: makes these, given what writes the text: one for each piece if it is streamed,
            else one.
        stream: whether it is.
        include_usage: whether its end tells numbers of tokens.
    """

    request: TextRequest
    header: Header
    responses: Callable[[Write], Iterator[Response]]
    stream: bool
    include_usage: bool


def ask_chat(model: LanguageModel, name: str, body: ChatBody, limits: Limits) -> Asked:
    """The answer that a request asks for.

    Raises:
        BadInput: a request that cannot be served.
    """
    if body.functions is not None:
        raise BadInput("functions are of OpenAI's earlier API; give tools instead")
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    request = chat_request(
        model,
        body.messages,
        TextRequest(
            (),
            _sampling(body, limits),
            max_tokens=_max_tokens(wanted, limits),
            stop=_stop(body),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        ),
        tools=body.tools,
        tool_choice=body.tool_choice,
        response_format=body.response_format,
        template_kwargs=body.chat_template_kwargs,
    )
    _check_room(request.text.prompt, limits)
    header = Header(name)

    def responses(write: Write) -> Iterator[Response]:
        if body.stream:
            yield from answer_chunks(write, model, request, header)
        else:
            yield answer(write, model, request, header)

    return Asked(request.text, header, responses, body.stream, _include_usage(body))


def ask_completion(model: LanguageModel, name: str, body: CompletionBody, limits: Limits) -> Asked:
    """The text that a request asks for.

    Raises:
        BadInput: a request that cannot be served.
    """
    if body.best_of not in (None, 1):
        raise BadInput(f"best_of is {body.best_of}; only one text is written, leave it out")
    text, tokens = _prompt(model, body)
    if body.echo and (text is None or body.logprobs is not None):
        raise BadInput("only a text is echoed, and without logprobs; leave echo out")
    _check_room(tokens, limits)
    wanted = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    request = TextRequest(
        tokens,
        _sampling(body, limits),
        max_tokens=_max_tokens(wanted, limits),
        stop=_stop(body),
        logprobs=body.logprobs,
    )
    header = Header(name)
    before = text if body.echo and text is not None else ""

    def responses(write: Write) -> Iterator[Response]:
        table = None if body.logprobs is None else LogprobsTable(model, len(text or ""))
        if not body.stream:
            yield openai.completion(
                header, write(request), prompt_tokens=len(tokens), before=before, logprobs=table
            )
            return
        if before:
            yield header.of_text(before)
        yield from openai.completion_chunks(header, write(request), table)

    return Asked(request, header, responses, body.stream, _include_usage(body))


def _prompt(model: LanguageModel, body: CompletionBody) -> tuple[str | None, list[int]]:
    """The prompt's text, if it is given as one, and its tokens."""
    prompt = body.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        if body.suffix is not None:
            return prompt, infill_tokens(model, prompt, body.suffix)
        return prompt, model.tokenize(prompt, parse_special=True)
    tokens = [each for each in prompt if isinstance(each, int)]
    if len(tokens) < len(prompt):
        raise BadInput("there are several prompts; send a request for each")
    if body.suffix is not None:
        raise BadInput("a suffix needs a prompt that is text; give it as text")
    check_tokens(model, tokens)
    return None, tokens


def check_tokens(model: LanguageModel, tokens: list[int]) -> None:
    """Refuses tokens that a model does not have.

    Raises:
        BadInput: one of them.
    """
    for token in tokens:
        if not 0 <= token < model.n_vocab:
            raise BadInput(f"there is no token {token}; the model has {model.n_vocab}")


def _sampling(body: TextBody, limits: Limits) -> SamplerSettings:
    if body.n not in (None, 1):
        raise BadInput(f"n is {body.n}; one text is written for a request, send several requests")
    given = {name: getattr(body, name) for name in _OWN_NAMES}
    given = {name: value for name, value in given.items() if value is not None}
    if "json_schema" in given:
        given["json_schema"] = json.dumps(given["json_schema"])
    if "top_k" in given:
        given["top_k"] = max(given["top_k"], 0)  # -1 is all, to other servers
    if "logit_bias" in given:
        given["logit_bias"] = _biases(given["logit_bias"])
    return SamplerSettings(**{**limits.sampling, **given})


def _biases(given: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in given.items()}
    except ValueError:
        raise BadInput('logit_bias is {"TOKEN": BIAS}, both numbers; write it so') from None


def _stop(body: TextBody) -> tuple[str, ...]:
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def _max_tokens(wanted: int | None, limits: Limits) -> int | None:
    """Most tokens of a text; None for what fits."""
    wanted = None if wanted == -1 else wanted
    most = limits.max_tokens
    if most is not None and wanted is not None and wanted > most:
        raise TooLong(f"max_tokens is {wanted}; this server writes at most {most}")
    return most if wanted is None else wanted


def _check_room(prompt: object, limits: Limits) -> None:
    size = len(prompt)  # type: ignore[arg-type]
    if size > limits.n_ctx:
        raise TooLong(
            f"the prompt has {size} tokens, but the context holds {limits.n_ctx}; shorten it"
        )


def _include_usage(body: TextBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage
