"""A text that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge_conflayers.decoding.stats import FULL_MODEL, Stats
from edge_conflayers.engine.logits_hook import LogitsWatcher
from edge_conflayers.engine.sampling import SamplerSettings

FinishReason = Literal["stop", "length"]
"""Why a text ends, as the OpenAI API says it: the model ended it or a stop string did, or there was
no more room."""


@dataclass(frozen=True)
class TextRequest:
    """A text that is asked for.

    Attributes:
        prompt: tokens, at least one.
        sampling: how tokens are drawn.
        max_tokens: at least 0; None for as many as fit in the context.
        stop: strings that end the text, which does not hold them.
        logprobs: how many of the likeliest tokens to tell at each place; None for no logprobs.
        watchers: see, and may change, the logits before each draw.
        before_batch: called before each batch of the prompt is read; what it raises ends the text.
        ends: asked after each token, with the tokens of the text so far; True ends the text.
        shown: control tokens whose names are part of the text.
        errors: what becomes of bytes that are no UTF-8, as for ``bytes.decode``.
    """

    prompt: Sequence[int]
    sampling: SamplerSettings = field(default_factory=SamplerSettings)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None
    watchers: Sequence[LogitsWatcher] = ()
    before_batch: Callable[[], None] = lambda: None
    ends: Callable[[Sequence[int]], bool] | None = None
    shown: frozenset[int] = frozenset()
    errors: Literal["replace", "ignore"] = "replace"


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token was by the model's own logits, before penalties and filters.

    Attributes:
        token: the one drawn.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place and theirs, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one token adds to a text.

    Attributes:
        text: in whole characters; may be empty, and may hold what earlier tokens left unfinished.
        token: None for the end of the text, and for a token that ends it.
        source: who drafted the token, such as "lookup"; "full" for the full model itself.
        stats: the text's statistics so far, which go on changing.
        parts: the text cut by who drafted it, with each part's source; ``source`` may not be among
            them, where a stop string's beginning was held back.
        finish_reason: why the text ends; None before its last piece.
        logprobs: if they were asked for, the token's.
        stop: the stop string that ended the text.
    """

    text: str
    token: int | None
    stats: Stats
    source: str = FULL_MODEL
    parts: tuple[tuple[str, str], ...] = ()
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    stop: str | None = None
