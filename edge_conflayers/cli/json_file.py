"""Writes what ``--json`` and ``--stats-json`` name."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub.room import NO_ROOM

STANDARD_OUTPUT = Path("-")


def check_writable(path: Path, *inputs: str | Path | None) -> None:
    """Checks that a file can be written, before anything is done for it.

    Args:
        inputs: names of what is read, of which it must be none.

    Raises:
        BadInput: it cannot, or must not.
    """
    if path == STANDARD_OUTPUT:
        return
    try:
        if path.is_file() and any(
            name is not None and Path(name).is_file() and path.samefile(name) for name in inputs
        ):
            raise OSError(0, "it is what is read from")
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(0, "it is read-only")
        if not _is_written_in_place(path):
            with tempfile.NamedTemporaryFile(dir=path.resolve().parent, prefix=path.name):
                pass
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; a circle of links
        raise _unwritable(path, error) from None


def show_result(
    json_file: Path | None, content: Callable[[], Mapping[str, Any]], show: Callable[[], None]
) -> None:
    """Writes a command's result as JSON, if a file is named, and shows it to people, unless JSON is
    what goes to standard output. A file that cannot be written loses nobody the result.

    Args:
        content: the result, for JSON.
        show: prints it.

    Raises:
        BadInput, EdgeConflayersError: as ``write_json`` does.
    """
    try:
        if json_file is not None:
            write_json(json_file, content())
    finally:
        if json_file != STANDARD_OUTPUT:
            show()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all; a device or pipe as it comes. What standard output or
    error goes to is written after what stands there. Numbers that JSON does not have, such as NaN,
    become null.

    Args:
        path: "-" for standard output.

    Raises:
        BadInput: the file cannot be written.
        EdgeConflayersError: there is no room for it.
    """
    text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        if (stream := _standard_stream(path)) is not None:
            stream.write(text)
            stream.flush()
        elif _is_written_in_place(path):
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path.resolve(), text)  # what a link leads to, not the link
    except (OSError, ValueError, RuntimeError) as error:
        raise _unwritable(path, error) from None


def _is_written_in_place(path: Path) -> bool:
    """Whether a path leads to what must not be replaced: a device, a pipe, or the file that
    /dev/stdout is."""
    return path.exists() and (not path.is_file() or _standard_stream(path) is not None)


def _standard_stream(path: Path) -> TextIO | None:
    """The standard stream that goes to the same place as a path, if one does."""
    for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(fd)):
                return stream
    return None


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        _usual_permissions(name)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _usual_permissions(name: str) -> None:
    """Gives a file the permissions of any new file; mkstemp's is for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)


def _unwritable(path: Path, error: Exception) -> EdgeConflayersError:
    why = getattr(error, "strerror", None) or error
    if getattr(error, "errno", None) in NO_ROOM:
        return EdgeConflayersError(f"{path} cannot be written ({why}); free some room there")
    return BadInput(f"{path} cannot be written ({why}); give another file")
