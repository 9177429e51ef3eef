"""What is written of a text and not shown yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator


class HeldText:
    """A text's end that is held back, cut by who drafted it."""

    def __init__(self) -> None:
        self._parts: deque[tuple[str, str]] = deque()

    def add(self, text: str, source: str) -> None:
        """Adds what a token brought, and who drafted the token."""
        if text:
            self._parts.append((text, source))

    def take(self, length: int) -> tuple[tuple[str, str], ...]:
        """Takes so many characters from the front, at most as many as there are."""
        return tuple(self._take(length))

    def _take(self, length: int) -> Iterator[tuple[str, str]]:
        while length > 0:
            text, source = self._parts.popleft()
            if len(text) > length:
                self._parts.appendleft((text[length:], source))
            yield text[:length], source
            length -= len(text)
