"""How far a pull is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["waiting", "downloading", "verifying"]


@dataclass(frozen=True)
class PullProgress:
    """How far the pull of one file is.

    ``done`` and ``total`` are bytes of the file; ``total`` is None where the server does not say.
    ``part`` counts from 1 to ``parts``. ``note`` is a sentence for people, mostly empty.
    """

    name: str
    stage: Stage
    part: int
    parts: int
    done: int
    total: int | None
    note: str = ""


ProgressCallback = Callable[[PullProgress], None]


class Reporter:
    """Turns what a pull does into ``PullProgress`` events.

    Args:
        name: what the file is called in them.
        total: its size in bytes, if known.
        callback: takes the events; None for nobody.
    """

    def __init__(self, name: str, total: int | None, callback: ProgressCallback | None) -> None:
        self.name = name
        self.total = total
        self.callback = callback
        self.part, self.parts = 1, 1

    def __call__(self, stage: Stage, done: int = 0, note: str = "") -> None:
        if self.callback is not None:
            done = done if self.total is None else min(done, self.total)
            self.callback(
                PullProgress(self.name, stage, self.part, self.parts, done, self.total, note)
            )
