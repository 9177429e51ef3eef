"""A session's text and its keys and values, kept in a file."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

from edge_conflayers.engine.binding import llama
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.engine.session.cached_text import CachedText
from edge_conflayers.errors import BadInput, EdgeConflayersError


def save_session(session: CachedText, path: Path) -> None:
    """Writes the sequence (tokens, keys, values) to a file, with its SHA-256 at the end.

    Raises:
        EdgeConflayersError: the file cannot be written.
    """
    tokens = int32_array(session.tokens)
    part = path.with_name(path.name + ".part")
    saved = llama.llama_state_seq_save_file(
        session.handle, str(part).encode(), 0, tokens, len(session.tokens)
    )
    try:
        if saved == 0:
            raise OSError
        digest = _sha256(part)
        with part.open("ab") as stream:
            stream.write(digest)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise EdgeConflayersError(
            f"the session cannot be written to {path}; check the folder"
        ) from None


def load_session(session: CachedText, path: Path) -> None:
    """Goes on from a file that ``save_session`` wrote; the next step needs at least one new token.

    Raises:
        BadInput: the file is damaged or of another model or cache type.
    """
    tokens = (ctypes.c_int32 * session.n_ctx)()
    count = ctypes.c_size_t()
    session.clear()
    # llama.cpp ends the process over a file that was cut off.
    if not _is_whole(path) or not llama.llama_state_seq_load_file(
        session.handle, str(path).encode(), 0, tokens, session.n_ctx, ctypes.byref(count)
    ):
        session.clear()
        raise BadInput(f"{path} is not a saved session of this model; start without it")
    session.tokens = list(tokens[: count.value])


def _sha256(path: Path, length: int | None = None) -> bytes:
    """Of a file's first bytes, or of all."""
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with path.open("rb") as stream:
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.digest()


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the SHA-256 of what is before it."""
    try:
        length = path.stat().st_size - hashlib.sha256().digest_size
        with path.open("rb") as stream:
            stream.seek(max(length, 0))
            return length > 0 and stream.read() == _sha256(path, length)
    except OSError:
        return False
