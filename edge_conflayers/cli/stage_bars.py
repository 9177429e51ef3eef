"""Progress bars on standard error for a command's stages, one after the other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from typing_extensions import Self


class StageBars:
    """The bar of the stage that a command is in, if that has one. Use it as a context manager."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None

    @property
    def has_bar(self) -> bool:
        return self._bar is not None

    def enters(self, stage: str) -> bool:
        """Whether this stage is another than the one before, whose bar then ends."""
        if stage == self._stage:
            return False
        self._stage = stage
        self._finish()
        return True

    def begin(self, length: int, label: str, **options: Any) -> None:
        """Shows a bar.

        Args:
            length: of the bar, for ``advance``.
            options: ``click.progressbar``'s.
        """
        self._bar = click.progressbar(
            length=length, label=label, show_pos=False, file=sys.stderr, **options
        )
        self._bar.__enter__()

    def advance(self, position: int) -> None:
        """Moves the bar, if there is one."""
        if self._bar is not None:
            self._bar.update(min(position, self._bar.length or 0) - self._bar.pos)

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._finish()
