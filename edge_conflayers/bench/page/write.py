"""Writes the page and its figures into a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from edge_conflayers.bench import tables
from edge_conflayers.bench.page.figures import KINDS
from edge_conflayers.bench.page.style import to_svg
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub.room import NO_ROOM

PAGE = "index.html"
_TEMPLATE = Path(__file__).with_name("page.html.jinja")


def write_page(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes ``index.html``, which holds everything, and each figure as an SVG file of its own.

    Args:
        report: as ``make_report`` gives it, or ``load_report``.
        folder: made if it is not there; older files of these names are replaced.

    Returns:
        The files, the page first.

    Raises:
        BadInput: they cannot be written, or the report lacks what every report has.
        EdgeConflayersError: there is no room for them.
    """
    try:
        about = about_lines(report)
        figures, files = [], {}
        for kind in KINDS:
            drawn = kind.draw(report)
            svg = None if drawn is None else to_svg(drawn, kind.name, kind.title, about)
            figures.append({"kind": kind, "svg": svg})
            if svg is not None:
                files[f"{kind.name}.svg"] = svg
        page = _template().render(
            report=report,
            about=about,
            figures=figures,
            summary=tables.table_rows(report),
            header=tables.HEADER,
            categories=tables.category_rows(report),
            category_header=tables.category_header(report),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise BadInput(
            f"this is no report of `bench --json` ({type(error).__name__}: {error}); measure anew"
        ) from error
    written = []
    make_folder(folder)
    try:
        for name, content in {PAGE: page, **files}.items():
            (folder / name).write_text(content, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return written


def make_folder(folder: Path) -> None:
    """Makes the folder, if it is not there.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> EdgeConflayersError:
    if error.errno in NO_ROOM:
        return EdgeConflayersError(
            f"{folder} cannot be written ({error.strerror}); free some room there"
        )
    return BadInput(f"{folder} cannot be written ({error.strerror}); give another folder")


def about_lines(report: Mapping[str, Any]) -> dict[str, str]:
    """What was measured where, in the order in which it matters."""
    machine, prompts = report["machine"], report["prompts"]
    first = prompts[0]
    repeats = max(len(run.get("all_seconds", ())) for run in first["methods"].values())
    drawn = (
        "greedily"
        if not first.get("temperature")
        else f"at temperature {first['temperature']:g}, seed {first.get('seed')}"
    )
    memory = machine.get("memory_bytes")
    lines = {
        "model": str(report["model"]),
        "machine": str(machine.get("cpu", "unknown")),
        "date": str(report["date"])[:16].replace("T", " ") + " UTC",
        "threads": f"{report.get('threads')} of {machine.get('logical_cpus')} CPUs",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "",
        "system": str(machine.get("os", "")),
        "architecture": f"{report['architecture']}, {report['n_layer']} layers"
        if "architecture" in report
        else "",
        "kernels": str(report.get("arithmetic", "")),
        "version": str(report.get("version", "")),
        "llama.cpp": str(report.get("upstream_version", "")),
        "prompts": f"{len(prompts)}, up to {first.get('max_tokens')} tokens each, drawn {drawn}",
        "repeats": str(repeats),
        "command": str(report.get("command", "")),
    }
    if not report.get("complete", True):
        lines["interrupted"] = "some of the prompts or repeats that were asked for are missing"
    return {key: value for key, value in lines.items() if value}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
