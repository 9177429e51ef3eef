"""What requests hold. Names and meanings are those of OpenAI's API, and beyond it llama.cpp's
server's; what is not named here is ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

JsonObject = dict[str, Any]


class StreamOptions(BaseModel):
    """How a text is streamed.

    Attributes:
        include_usage: tell the numbers of tokens at the end.
    """

    include_usage: bool = False


class TextBody(BaseModel):
    """What requests for texts have in common: sampling settings as ``SamplerSettings`` has them,
    and how the text comes. What is null is as the server was started with."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=-1)] | None = None
    stop: str | list[str] | None = None
    n: int | None = None

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    seed: int | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    grammar: str | None = None
    json_schema: JsonObject | bool | None = None
    regex: str | None = None
    logit_bias: dict[str, float] | None = None


class ChatBody(TextBody):
    """A request for an answer to messages."""

    messages: list[JsonObject]
    max_completion_tokens: Annotated[int, Field(ge=-1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: JsonObject | None = None
    tools: list[JsonObject] | None = None
    tool_choice: str | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    functions: list[JsonObject] | None = None
    chat_template_kwargs: JsonObject | None = None


class CompletionBody(TextBody):
    """A request for the text that follows a prompt."""

    prompt: str | list[int] | list[str] | list[list[int]]
    suffix: str | None = None
    echo: bool = False
    best_of: int | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TokenizeBody(BaseModel):
    """A text that is to be tokenized."""

    model: str | None = None
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeBody(BaseModel):
    """Tokens whose text is wanted."""

    model: str | None = None
    tokens: list[int]


class EmbeddingBody(BaseModel):
    """Texts that are to be embedded."""

    model: str | None = None
    input: str | list[int] | list[str] | list[list[int]]
    encoding_format: str | None = None
    dimensions: int | None = None
