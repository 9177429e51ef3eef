"""Writes a text to standard output as it comes, up to its stop string."""

from __future__ import annotations

import codecs
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from edge_conflayers.stop_strings import StopStrings

if TYPE_CHECKING:
    from edge_conflayers.cli.sources import SourceColours
    from edge_conflayers.decoding.stats import Stats
    from edge_conflayers.engine.language_model import LanguageModel


def stream(
    model: LanguageModel,
    written: Generator[int, None, None],
    stats: Stats,
    *,
    stops: Sequence[str] = (),
    colours: SourceColours | None = None,
) -> None:
    """Writes a text until it ends or a stop string is found, which is not written.

    Args:
        written: its tokens.
        stats: theirs.
        colours: colours each token by who drafted it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    watch = StopStrings(stops)
    held = _HeldPieces()

    def show(text: str) -> None:
        if colours is None:
            sys.stdout.write(text)
        else:
            sys.stdout.writelines(colours.mark(*piece) for piece in held.first(len(text)))
        sys.stdout.flush()

    with closing(written):  # an interrupt still completes the statistics
        for token in written:
            text = decoder.decode(model.piece(token))
            held.add(text, stats.sources[-1])
            show(watch.feed(text))
            if watch.found is not None:
                break
    if watch.found is None:
        last = decoder.decode(b"", final=True)
        held.add(last, stats.sources[-1] if stats.sources else "")
        show(watch.feed(last) + watch.rest())
    if watch.found is not None:
        stats.finish_reason = "stop"


class _HeldPieces:
    """Pieces of a text that are not shown yet, each with who drafted it."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[str, str]] = deque()

    def add(self, text: str, source: str) -> None:
        if text:
            self._pieces.append((text, source))

    def first(self, length: int) -> Iterator[tuple[str, str]]:
        """Takes so many characters from the front."""
        while length > 0:
            text, source = self._pieces.popleft()
            if len(text) > length:
                self._pieces.appendleft((text[length:], source))
            yield text[:length], source
            length -= len(text)
