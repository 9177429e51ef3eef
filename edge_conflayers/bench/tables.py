"""A benchmark's report as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.bench.report import REFERENCE

HEADER = (
    "method",
    "tokens",
    "seconds",
    "tokens/s",
    "x plain",
    "slowest x",
    "x upstream",
    "tokens/round",
    "accepted",
    "draft s",
    "verify s",
    "search s",
    "identical",
)


def table_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A report's methods, one row each, under ``HEADER``."""
    return [
        (
            name,
            str(total["tokens"]),
            f"{total['seconds']:.2f}",
            f"{total['tokens_per_second']:.1f}",
            _number(total["speedup"], ".2f"),
            _number(total["lowest_speedup"], ".2f"),
            _number(total["speedup_over_upstream"], ".2f"),
            f"{total['tokens_per_round']:.2f}",
            _number(total["acceptance_rate"], ".0%"),
            f"{total['draft_seconds']:.2f}",
            f"{total['verify_seconds']:.2f}",
            f"{total['search_seconds']:.2f}",
            "-" if total["identical"] is None else "yes" if total["identical"] else "NO",
        )
        for name, total in report["methods"].items()
    ]


def category_header(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The header of ``category_rows``."""
    names = [name for name in report["methods"] if name != REFERENCE]
    if REFERENCE in report["methods"]:
        return ("category", "copied", f"{REFERENCE} tokens/s", *(f"{name} x" for name in names))
    return ("category", "copied", *(f"{name} tokens/s" for name in names))


def category_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A report's categories, one row each, under ``category_header``: the share of the texts that
    is copied from their prompts, and each method's speed over ``plain``, or its tokens per second
    if ``plain`` was not run."""
    rows = []
    for category, methods in report["categories"].items():
        others = [total for name, total in methods.items() if name != REFERENCE]
        if REFERENCE in methods:
            cells = [f"{methods[REFERENCE]['tokens_per_second']:.1f}"]
            cells += [_number(total["speedup"], ".2f") for total in others]
        else:
            cells = [f"{total['tokens_per_second']:.1f}" for total in others]
        copied = next(iter(methods.values()))["copied"]
        rows.append((category, f"{copied:.0%}", *cells))
    return rows


def _number(value: float | None, form: str) -> str:
    """A number in a format, or "-" for none."""
    return "-" if value is None else format(value, form)
