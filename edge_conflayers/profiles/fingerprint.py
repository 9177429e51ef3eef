"""Which model a profile is of."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from edge_conflayers.errors import BadInput

_SAMPLE_BYTES = 1 << 20


def model_fingerprint(path: Path, changes: str = "") -> str:
    """SHA-256 over the file's size, first and last MiB, or those of each file of a folder's
    ``onnx``: cheap however large the model is.

    Args:
        changes: what the model is loaded with that changes it (``LanguageModel.changes``).

    Raises:
        BadInput: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        files = sorted((path / "onnx").iterdir()) if path.is_dir() else [path]
        for each in files:
            _add_file(digest, each)
        digest.update(changes.encode())
    except OSError as error:
        raise BadInput(
            f"cannot read the model {path} ({error.strerror}): give the path of a GGUF file or of"
            " an exported folder"
        ) from error
    return digest.hexdigest()


def _add_file(digest: Any, path: Path) -> None:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        for start in (0, max(0, size - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
