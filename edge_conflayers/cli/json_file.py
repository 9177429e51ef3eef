"""Writes the file that ``--json`` names."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_conflayers.errors import BadInput


def check_writable(path: Path) -> None:
    """Checks that a file can be written, before hours of measuring.

    Raises:
        BadInput: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all.

    Raises:
        BadInput: the file cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
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
    except OSError as error:
        raise _unwritable(path, error) from None


def _usual_permissions(name: str) -> None:
    """Gives a file the permissions of any new file; mkstemp's is for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path} cannot be written ({error.strerror}); give another --json file")
