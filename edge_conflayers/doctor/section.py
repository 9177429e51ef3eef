"""A part of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Section:
    """One part of the report, for a reader and for a program.

    Attributes:
        name: its heading, and its key in JSON.
        lines: what it tells, as (label, text).
        data: the same, JSON-able.
        problems: what is broken, each with what to do about it.
    """

    name: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def tell(self, label: str, text: str) -> None:
        """Adds a line."""
        self.lines.append((label, text))

    def to_json(self) -> dict[str, Any]:
        return {**self.data, "problems": self.problems}


def size(n_bytes: float) -> str:
    """Bytes for a reader, such as "491 MB" (10^6 bytes)."""
    if n_bytes >= 9.95e9:
        return f"{n_bytes / 1e9:.0f} GB"
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"
