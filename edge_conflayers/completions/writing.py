"""Writes a text that is asked for, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Generator
from contextlib import closing

from edge_conflayers.completions.held_text import HeldText
from edge_conflayers.completions.logprobs import LogprobsWatcher
from edge_conflayers.completions.request import FinishReason, Piece, TextRequest
from edge_conflayers.decoding.stats import FULL_MODEL, Stats
from edge_conflayers.stop_strings import StopStrings
from edge_conflayers.text_generator import TextGenerator


def write(
    generator: TextGenerator, request: TextRequest, stats: Stats | None = None
) -> Generator[Piece, None, None]:
    """Yields what each token adds to a text, as soon as it is certain, and last why it ends.

    The text, all pieces together, does not depend on how tokens cut it: characters come whole, and
    what could be the beginning of a stop string is held back. Ending the iteration ends the text.

    Args:
        stats: filled in as it goes, in place of new ones.

    Raises:
        as ``TextGenerator.generate`` does; BadInput for an empty stop string.
    """
    model, stats = generator.model, stats or Stats()
    decoder = codecs.getincrementaldecoder("utf-8")(errors=request.errors)
    stops, held = StopStrings(request.stop), HeldText()
    logprobs = None if request.logprobs is None else LogprobsWatcher(request.logprobs)
    tokens = generator.generate(
        request.prompt,
        request.sampling,
        max_tokens=request.max_tokens,
        stats=stats,
        before_batch=request.before_batch,
        watchers=(*(() if logprobs is None else (logprobs,)), *request.watchers),
    )
    text: list[int] = []
    ended = False
    with closing(tokens):
        for token in tokens:
            noted = None if logprobs is None else logprobs.next()
            if model.ends_text(token):
                break
            text.append(token)
            source = stats.sources[-1]
            decoded = decoder.decode(model.piece(token, special=token in request.shown))
            held.add(decoded, source)
            shown = stops.feed(decoded)
            ended = stops.found is not None or (request.ends is not None and request.ends(text))
            yield Piece(shown, token, stats, source, held.take(len(shown)), logprobs=noted)
            if ended:
                break
    unfinished = decoder.decode(b"", final=True)
    held.add(unfinished, stats.sources[-1] if stats.sources else FULL_MODEL)
    rest = stops.feed(unfinished) + stops.rest()
    if ended:
        stats.finish_reason = "stop"
    reason: FinishReason = "stop" if stats.finish_reason in ("stop", "end") else "length"
    yield Piece(
        *(rest, None, stats),
        parts=held.take(len(rest)),
        finish_reason=reason,
        stop=stops.found,
    )
