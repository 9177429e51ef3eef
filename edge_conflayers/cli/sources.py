"""Who drafted which part of a text, in colours."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.color import ColorSystem
from rich.style import Style
from rich.text import Text

from edge_conflayers.cli.terminal import console
from edge_conflayers.decoding.stats import FULL_MODEL
from edge_conflayers.drafters import (
    bridged,
    draft_model,
    layers,
    lookup,
    next_state,
    recycling,
)

# Colours that every terminal has; the server's page has the same (theme.css). The full model's own
# tokens keep the terminal's.
_KNOWN = {
    layers.NAME: "green",
    lookup.NAME: "cyan",
    recycling.NAME: "magenta",
    draft_model.NAME: "yellow",
    next_state.NAME: "blue",
    bridged.NAME: "red",
}
_OTHERS = ("bright_green", "bright_cyan", "bright_magenta", "bright_yellow")


class SourceColours:
    """Colours for who drafted a token, where ``terminal.console`` has any."""

    def __init__(self) -> None:
        out = console(sys.stdout)
        self._on = out.color_system is not None and not out.no_color and not out.legacy_windows
        self._styles = {FULL_MODEL: Style.null()}
        self._styles |= {name: Style(color=colour) for name, colour in _KNOWN.items()}

    def _style(self, source: str) -> Style:
        if source not in self._styles:
            used = len(self._styles) - len(_KNOWN) - 1
            self._styles[source] = Style(color=_OTHERS[used % len(_OTHERS)])
        return self._styles[source]

    def mark(self, parts: Iterable[tuple[str, str]]) -> str:
        """Parts of a text, each in its source's colour, ready to be written."""
        if not self._on:
            return "".join(text for text, _ in parts)
        return "".join(
            self._style(source).render(text, color_system=ColorSystem.STANDARD)
            for text, source in parts
        )

    def print_legend(self, sources: Sequence[str]) -> None:
        """Says on standard error how many tokens came from each source, in its colour."""
        parts = [
            Text(f"{'full model' if source == FULL_MODEL else source} {n}", self._style(source))
            for source, n in Counter(sources).most_common()
        ]
        console(sys.stderr).print(Text("drafted by: ") + Text(", ").join(parts))
