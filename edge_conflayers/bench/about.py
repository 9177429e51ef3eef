"""Which model was measured, where and with what, for the head of a JSON report."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_conflayers import machine, profiles

if TYPE_CHECKING:
    from edge_conflayers.engine.language_model import LanguageModel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# An installed package carries the pin inside; a checkout has it beside the package.
_PACKAGE = Path(__file__).resolve().parent.parent
_UPSTREAM_FILES = (_PACKAGE / "upstream.toml", _PACKAGE.parent / "native" / "upstream.toml")


def about(model: Path, threads: int) -> dict[str, Any]:
    """Model, machine, threads, versions and date, JSON-able."""
    from edge_conflayers.engine.build import library_build

    return {
        "model": model.name,
        "machine": about_machine(),
        "threads": threads,
        "version": library_build(),
        "upstream_version": upstream_version(),
        "date": now(),
    }


def about_model(model: LanguageModel) -> dict[str, Any]:
    """What a loaded model is, and what computes its steps, JSON-able."""
    return {
        "architecture": model.architecture,
        "n_layer": model.n_layer,
        "arithmetic": model.arithmetic,
    }


def about_machine() -> dict[str, Any]:
    """The machine, JSON-able."""
    return {
        "cpu": profiles.cpu_name(),
        "cores": machine.default_threads(),
        "logical_cpus": os.cpu_count(),
        "memory_bytes": machine.total_memory(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def now() -> str:
    """The date and time, UTC, in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def upstream_version() -> str:
    """The pinned upstream release, such as "llama-cpp-python 0.3.36"."""
    file = next(path for path in _UPSTREAM_FILES if path.is_file())
    pin = tomllib.loads(file.read_text(encoding="utf-8"))
    return f"{pin['package']} {pin['version']}"
