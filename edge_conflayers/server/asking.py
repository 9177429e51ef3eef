"""Requests as texts that are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_conflayers.completions.answers import Write, answer, answer_chunks
from edge_conflayers.completions.chat import chat_request
from edge_conflayers.completions.completion import Completion
from edge_conflayers.completions.openai import Header, Response
from edge_conflayers.completions.request import TextRequest
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput
from edge_conflayers.llama.prompts import infill_tokens
from edge_conflayers.server.bodies import ChatBody, CompletionBody, TextBody
from edge_conflayers.server.failures import TooLong

_COMPLETION_TOKENS = 16  # of a completion that does not say how many, as in OpenAI's API
_MOST_TEXTS = 128  # of a request, as in OpenAI's API
_SEEDS = 2**32 - 1  # the number itself stands for a random one
_OWN_NAMES = SamplerSettings.__dataclass_fields__.keys() & TextBody.model_fields.keys()


@dataclass(frozen=True)
class Limits:
    """What a model's texts may be.

    Attributes:
        n_ctx: tokens of the context.
        max_tokens: most of a text; None for what fits in the context.
        sampling: settings that requests do not give, by the names of ``SamplerSettings``.
        threads: CPU threads of a text.
    """

    n_ctx: int
    max_tokens: int | None
    sampling: Mapping[str, Any]
    threads: int


@dataclass(frozen=True)
class AskedText:
    """One of the texts that a request asks for.

    Attributes:
        request: the text.
        responses: makes what is returned, given what writes the text: a dictionary for each piece
            if it is streamed, else one.
        repeated: whether its prompt is that of the text before it.
    """

    request: TextRequest
    responses: Callable[[Write], Iterator[Response]]
    repeated: bool = False


@dataclass(frozen=True)
class Asked:
    """What a request asks for, and how it is returned.

    Attributes:
        texts: each is a choice of the response.
        header: of the dictionaries that are returned.
        stream: whether pieces are.
        include_usage: whether the end of a stream tells numbers of tokens.
        kind: of the dictionaries (``object``).
    """

    texts: Sequence[AskedText]
    header: Header
    kind: str
    stream: bool
    include_usage: bool


def ask_chat(model: LanguageModel, name: str, body: ChatBody, limits: Limits) -> Asked:
    """The answers that a request asks for.

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
        parallel_calls=body.parallel_tool_calls is not False,
        response_format=body.response_format,
        template_kwargs=body.chat_template_kwargs,
    )
    _check_room(request.text.prompt, limits)
    header = Header(name)

    def one(number: int) -> AskedText:
        asked = request.with_text(sampling=_of_choice(request.text.sampling, number))

        def responses(write: Write) -> Iterator[Response]:
            if body.stream:
                yield from answer_chunks(write, model, asked, header)
            else:
                yield answer(write, model, asked, header)

        return AskedText(asked.text, responses, number > 0)

    texts = [one(number) for number in range(_count(body, 1))]
    return Asked(texts, header, "chat.completion.chunk", body.stream, _include_usage(body))


def ask_completion(model: LanguageModel, name: str, body: CompletionBody, limits: Limits) -> Asked:
    """The texts that a request asks for.

    Raises:
        BadInput: a request that cannot be served.
    """
    if body.best_of not in (None, body.n or 1):
        raise BadInput(f"best_of is {body.best_of}; all texts are returned, give it as n")
    prompts = _prompts(body.prompt)
    count = _count(body, len(prompts))
    wanted = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    sampling, header = _sampling(body, limits), Header(name)
    texts = []
    for prompt in prompts:
        text, tokens = _prompt(model, prompt, body.suffix)
        _check_room(tokens, limits)
        for number in range(count):
            request = TextRequest(
                tokens,
                _of_choice(sampling, number),
                max_tokens=_max_tokens(wanted, limits),
                stop=_stop(body),
                logprobs=body.logprobs,
            )
            completion = Completion(
                model,
                request,
                header,
                text=text,
                echo=body.echo,
                stream=body.stream,
                threads=limits.threads,
            )
            texts.append(AskedText(request, completion.responses, number > 0))
    return Asked(texts, header, "text_completion", body.stream, _include_usage(body))


def _prompts(given: str | Sequence[Any]) -> Sequence[str | list[int]]:
    """The prompts that a request gives: one or several, as texts or as tokens."""
    one = isinstance(given, str) or all(isinstance(each, int) for each in given)
    return [given] if one else given  # type: ignore[list-item]


def _prompt(
    model: LanguageModel, prompt: str | list[int], suffix: str | None
) -> tuple[str | None, list[int]]:
    """A prompt's text, if it is given as one, and its tokens."""
    if isinstance(prompt, str):
        if suffix is not None:
            return prompt, infill_tokens(model, prompt, suffix)
        return prompt, model.tokenize(prompt, parse_special=True)
    if suffix is not None:
        raise BadInput("a suffix needs a prompt that is text; give it as text")
    check_tokens(model, prompt)
    return None, prompt


def _count(body: TextBody, prompts: int) -> int:
    """How many texts are to be written for each prompt."""
    count = 1 if body.n is None else body.n
    if count < 1 or count * prompts > _MOST_TEXTS:
        raise BadInput(
            f"n is {count}; a request may ask for 1 to {_MOST_TEXTS} texts, send several requests"
        )
    return count


def _of_choice(sampling: SamplerSettings, number: int) -> SamplerSettings:
    """The settings of a prompt's text with this number: each has a seed of its own."""
    return replace(sampling, seed=(sampling.seed + number) % _SEEDS) if number else sampling


def check_tokens(model: LanguageModel, tokens: list[int]) -> None:
    """Refuses tokens that a model does not have.

    Raises:
        BadInput: one of them.
    """
    for token in tokens:
        if not 0 <= token < model.n_vocab:
            raise BadInput(f"there is no token {token}; the model has {model.n_vocab}")


def _sampling(body: TextBody, limits: Limits) -> SamplerSettings:
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


def _check_room(prompt: Sequence[int], limits: Limits) -> None:
    size = len(prompt)
    if not size:
        raise BadInput("the prompt is empty; give at least one token")
    if size > limits.n_ctx:
        raise TooLong(
            f"the prompt has {size} tokens, but the context holds {limits.n_ctx}; shorten it"
        )


def _include_usage(body: TextBody) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage
