"""Stop strings: a text ends before the first one, which is never shown."""

from __future__ import annotations

from collections.abc import Sequence

from edge_conflayers.errors import BadInput


class StopStrings:
    """Watches a text, as it comes in pieces, for the strings that end it.

    What is shown does not depend on where the pieces are cut: the stop string that is complete
    first ends the text, and of those complete at the same character, the longest.

    Args:
        stops: the strings; one alone may be given as it is.

    Raises:
        BadInput: an empty stop string.
    """

    def __init__(self, stops: str | Sequence[str]) -> None:
        self._stops = (stops,) if isinstance(stops, str) else tuple(stops)
        if not all(self._stops):
            raise BadInput("a stop string is empty, and would end every text before it begins")
        self.found: str | None = None  # the stop string that has ended the text
        self._held = ""  # the text's end, which may be the beginning of a stop string

    def feed(self, text: str) -> str:
        """Takes the next piece of the text; returns what of it all may be shown now.

        Returns "" once a stop string was found.
        """
        if self.found is not None:
            return ""
        text = self._held + text
        ends = ((text.find(stop) + len(stop), stop) for stop in self._stops if stop in text)
        end, self.found = min(ends, key=lambda it: (it[0], -len(it[1])), default=(0, None))
        if self.found is not None:
            self._held = ""
            return text[: end - len(self.found)]
        shown = len(text) - self._beginning(text)
        self._held = text[shown:]
        return text[:shown]

    def rest(self) -> str:
        """What was held back, when the text has ended; "" if a stop string ended it."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of a text that is the beginning of a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        return next(
            (
                length
                for length in range(min(longest, len(text)), 0, -1)
                if any(stop.startswith(text[-length:]) for stop in self._stops)
            ),
            0,
        )
