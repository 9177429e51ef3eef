"""Room on the disk for what is pulled, and what to say where there is none."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line
from edge_conflayers.hub.partial import Partial
from edge_conflayers.machine.folders import CACHE_VARIABLE

_QUOTA = getattr(errno, "EDQUOT", errno.ENOSPC)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_ROOM = (errno.ENOSPC, _QUOTA, errno.EFBIG)
"""Error numbers of a write that there was no room for."""


def check_room(partial: Partial, beside: int = 0) -> None:
    """Refuses a download that there is no room for, as far as its size is known.

    Args:
        beside: bytes that are needed for a while beside the file itself.

    Raises:
        EdgeConflayersError: there is too little room.
    """
    if partial.file.size is not None:
        wanted = partial.file.size - partial.length + beside
        if wanted > _free(partial.path.parent):
            raise _no_room(partial, wanted)


def disk_trouble(error: OSError, partial: Partial, beside: int = 0) -> EdgeConflayersError:
    """What to tell a person of a file that could not be written.

    Args:
        beside: as for ``check_room``.
    """
    label, folder = partial.file.label, partial.path.parent
    if error.errno in _READ_ONLY:
        return unwritable(folder, error)
    if error.errno in (errno.ENOSPC, _QUOTA):
        size = partial.file.size
        quota = ", but your quota is used up" if error.errno != errno.ENOSPC else ""
        return _no_room(partial, None if size is None else size - partial.length + beside, quota)
    if error.errno == errno.EFBIG:
        return EdgeConflayersError(
            f"{label} is too large a file for {folder} (a limit of its file system, or of"
            f" `ulimit -f`); set {CACHE_VARIABLE} to a folder on another disk, or lift the limit"
        )
    return EdgeConflayersError(
        f"cannot store {label} in {folder} ({one_line(error)}): check the disk, or set"
        f" {CACHE_VARIABLE} to a folder on another one"
    )


def unwritable(folder: Path, error: OSError) -> BadInput:
    """What to tell a person of a cache folder that cannot be written."""
    return BadInput(
        f"cannot write to the model cache {folder} ({error.strerror or error}):"
        f" set {CACHE_VARIABLE} to a folder that you can write to"
    )


def _no_room(partial: Partial, wanted: int | None, quota: str = "") -> EdgeConflayersError:
    folder = partial.path.parent
    more = "more" if partial.length else ""
    need = "more bytes" if wanted is None else f"{_megabytes(wanted)} {more}".strip()
    return EdgeConflayersError(
        f"no room for {partial.file.label} in {folder}: {need} are wanted,"
        f" {_megabytes(_free(folder))} are free{quota};"
        f" free some there, or set {CACHE_VARIABLE} to a folder on another disk"
    )


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"
