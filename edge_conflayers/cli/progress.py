"""What a command is doing, and how far it is, where somebody watches."""

from __future__ import annotations

import sys
import threading
import time
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_conflayers.cli.streams import before_next_message
from edge_conflayers.cli.terminal import columns_of, on_terminal, redraws_lines

if TYPE_CHECKING:
    from typing_extensions import Self

Unit = Literal["", "tokens", "bytes", "seconds", "share"]

_AFTER = 1.0  # seconds that a stage goes on unseen: most take less; not tuned
_APART = 0.1  # seconds between two drawings; not tuned
_BAR = 20  # columns
_BAR_FROM = 80  # columns of a terminal that has room for a bar


@dataclass
class Stage:
    """Something that is being done.

    Attributes:
        doing: what.
        total: what ``done`` counts up to; 0 where that is not known.
        unit: what they count; "" for things without a name, "share" for parts of one whole.
        more: what else is to be seen.
        begun: when, by ``time.monotonic``.
        first: what was done when that was first told: a pull may go on where it stopped.
    """

    doing: str
    total: float = 0.0
    unit: Unit = ""
    done: float = 0.0
    more: str = ""
    begun: float = field(default_factory=time.monotonic)
    first: float | None = None

    def line(self, columns: int) -> str:
        """How far it is, in one line."""
        parts = [self.doing]
        if self.total > 0:
            share = min(1.0, self.done / self.total)
            if columns >= _BAR_FROM:
                full = int(share * _BAR)
                parts.append(f"[{'#' * full}{'-' * (_BAR - full)}]")
            parts.append(f"{share:.0%}")
        return "  ".join(filter(None, (*parts, self._count(), self._left(), self.more)))

    def _count(self) -> str:
        scale, name = {"bytes": (1e6, " MB"), "tokens": (1, " tokens")}.get(self.unit, (1, ""))
        if self.unit in ("seconds", "share") or not (self.done or self.total):
            return ""
        of = f" of {self.total / scale:.0f}" if self.total else ""
        return f"{self.done / scale:.0f}{of}{name}"

    def _left(self) -> str:
        """The time that is left, as far as can be told."""
        spent = time.monotonic() - self.begun
        if self.unit == "seconds":
            left = self.total - self.done
        elif self.total and spent >= _AFTER and self.done > (first := self.first or 0.0):
            left = spent * (self.total - self.done) / (self.done - first)
        else:
            return ""
        minutes, seconds = divmod(max(0, round(left)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{f'{hours}:' if hours else ''}{minutes:02}:{seconds:02} left"


class Progress:
    """The stage that a command is in, as a line on standard error that goes away.

    It is shown on a terminal only, and only if a stage takes longer than a second. A terminal that
    does not redraw lines (TERM=dumb) gets a line for each such stage. Whatever else is written on
    standard error takes the line away first. Use it as a context manager.

    Args:
        doing: the first stage; None for none yet.
        quiet: show nothing.

    Attributes:
        is_watched: whether anything is shown.
    """

    def __init__(self, doing: str | None = None, *, quiet: bool = False) -> None:
        self.is_watched = not quiet and on_terminal(sys.stderr)
        self._redraws = redraws_lines()
        self._lock = threading.RLock()
        self._stage: Stage | None = None
        self._timer: threading.Timer | None = None
        self._drawn = 0.0  # when
        self._shown = 0  # columns of the line that is there
        if doing is not None:
            self.begin(doing)

    def begin(
        self, doing: str, total: float = 0.0, unit: Unit = "", *, at_once: bool = False
    ) -> None:
        """Enters a stage, which ends the one before.

        Args:
            doing, total, unit: as in ``Stage``.
            at_once: show it without waiting for a second, where it is known to take longer.
        """
        self.end()
        if not self.is_watched:
            return
        self._stage = stage = Stage(doing, total, unit)
        if at_once:
            self._draw(stage)
            return
        self._timer = threading.Timer(_AFTER, lambda: self._draw(stage))
        self._timer.daemon = True
        self._timer.start()

    def update(self, done: float, *, more: str = "", total: float | None = None) -> None:
        """Tells how far the stage is, as in ``Stage``."""
        stage = self._stage
        if stage is None:
            return
        stage.done, stage.more = done, more
        stage.first = done if stage.first is None else stage.first
        stage.total = stage.total if total is None else total
        now = time.monotonic()
        if self._redraws and now - stage.begun >= _AFTER and now - self._drawn >= _APART:
            self._draw(stage)

    def note(self, text: str) -> None:
        """Writes a line that stays, where somebody watches."""
        if self.is_watched:
            sys.stderr.write(f"{text}\n")

    def end(self) -> None:
        """Ends the stage."""
        with self._lock:
            self._stage = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._erase()

    def _draw(self, stage: Stage) -> None:
        with self._lock:
            if stage is not self._stage:  # it ended while this waited
                return
            self._drawn = time.monotonic()
            if not self._redraws:
                sys.stderr.write(f"{cut(stage.doing)}\n")
                return
            columns = columns_of(sys.stderr)
            line = cut(stage.line(columns), columns - 1)
            self._erase()
            sys.stderr.write(f"\r{line}")
            sys.stderr.flush()
            self._shown = width_of(line)
            before_next_message(self._erase)

    def _erase(self) -> None:
        with self._lock:
            width, self._shown = self._shown, 0
            before_next_message(None)
            if width:
                sys.stderr.write(f"\r{'':{width}}\r")
                sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def cut(text: str, columns: int | None = None) -> str:
    """As much of a text as fits in so many columns. What does not print, as a file's name may hold,
    becomes "?"."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    while columns is not None and width_of(shown) > columns:
        shown = shown[:-1]
    return shown


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
