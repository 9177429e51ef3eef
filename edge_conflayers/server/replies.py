"""What is added to results: timings, who drafted what, and usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edge_conflayers.completions.openai import Header, Response, usage
from edge_conflayers.completions.request import Piece
from edge_conflayers.decoding.stats import Stats

FIELD = "edge_conflayers"
"""Of a response: what no other server has to tell."""


class Report:
    """What a text's responses tell besides it.

    Args:
        seed: of its random numbers.
        number: of the text among those of its request.
        repeated: whether its prompt is that of the text before it, and counted with that one.
    """

    def __init__(self, seed: int, number: int = 0, *, repeated: bool = False) -> None:
        self.stats = Stats()
        self.method = ""
        self.repeated = repeated
        self._seed = seed
        self._number = number
        self._pieces: list[dict[str, str]] = []  # since the last response

    def add(self, piece: Piece) -> None:
        """Notes a piece that the next response is made of."""
        self.stats = piece.stats
        self._pieces += [{"text": text, "source": source} for text, source in piece.parts]

    def complete(self, response: Response) -> Response:
        """A response with what is to be told of its pieces, and in a text's last one of all."""
        (choice,) = response["choices"]
        if self._number:
            choice = {**choice, "index": self._number}
            response = {**response, "choices": [choice]}
        if choice.get("delta") == {"role": "assistant"}:
            return response
        pieces, self._pieces = self._pieces, []
        stats = self.stats
        told: dict[str, Any] = {
            "pieces": pieces,
            "rounds": stats.rounds,
            "drafted": stats.drafted,
            "accepted": stats.accepted,
        }
        if choice["finish_reason"] is None:
            return {**response, FIELD: told} if pieces else response
        told |= {
            "method": self.method,
            "seed": self._seed,
            "sources": dict(Counter(stats.sources)),
        }
        return {**response, "timings": timings(stats), FIELD: told}


def joined(responses: Sequence[Response], reports: Sequence[Report]) -> Response:
    """The responses for a request's texts as one. Of several, what is told of each stands in its
    choice."""
    found = {**responses[0], "usage": usage_of(reports)}
    if len(responses) == 1:
        return found
    told = ("timings", FIELD)
    for name in told:
        del found[name]
    found["choices"] = [
        {**each["choices"][0], **{name: each[name] for name in told}} for each in responses
    ]
    return found


def usage_chunk(header: Header, kind: str, reports: Sequence[Report]) -> Response:
    """The chunk that tells a stream's numbers of tokens.

    Args:
        kind: of its other chunks (``object``).
    """
    chat = kind.startswith("chat")
    return {
        "id": ("chat" if chat else "") + header.id,
        "object": kind,
        "created": header.created,
        "model": header.model,
        "choices": [],
        "usage": usage_of(reports),
    }


def usage_of(reports: Sequence[Report]) -> Response:
    """The numbers of tokens of a request: a prompt counts once for all its texts."""
    first = [each.stats for each in reports if not each.repeated]
    numbers = usage(
        sum(each.prompt_tokens for each in first), sum(each.stats.tokens for each in reports)
    )
    cached = {"cached_tokens": sum(each.cached_tokens for each in first)}
    return {**numbers, "prompt_tokens_details": cached}


def timings(stats: Stats) -> dict[str, float]:
    """Times of a text as llama.cpp's server tells them, in milliseconds."""
    read = stats.prompt_tokens - stats.cached_tokens
    return {
        "cache_n": stats.cached_tokens,
        **_timing("prompt", read, stats.prompt_seconds),
        **_timing("predicted", stats.tokens, stats.seconds),
        "draft_n": stats.drafted,
        "draft_n_accepted": stats.accepted,
    }


def _timing(name: str, tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": seconds * 1000,
        f"{name}_per_token_ms": seconds * 1000 / tokens if tokens else 0.0,
        f"{name}_per_second": tokens / seconds if seconds > 0 else 0.0,
    }
