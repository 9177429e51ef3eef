"""The cache folder: where it is, whether it can be written, and who may at a time."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.hub.progress import Reporter
from edge_conflayers.hub.room import NO_ROOM, unwritable
from edge_conflayers.machine import folders
from edge_conflayers.machine.folders import CACHE_VARIABLE

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def cache_folder() -> Path:
    """Where pulled models are kept: ``models`` in the user's cache folder for edge-conflayers.

    The environment variable ``EDGE_CONFLAYERS_CACHE`` replaces the cache folder.
    """
    return folders.cache_folder() / "models"


def make_writable(folder: Path) -> None:
    """Makes a folder of the cache, if need be.

    Raises:
        BadInput: it cannot be made, or not be written to.
        EdgeConflayersError: there is no room for it.
    """
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise EdgeConflayersError(
                f"no room in the model cache {cache_folder()} ({error.strerror}): free some there,"
                f" or set {CACHE_VARIABLE} to a folder on another disk"
            ) from error
        raise unwritable(cache_folder(), error) from error


@contextlib.contextmanager
def locked(folder: Path, name: str, report: Reporter | None) -> Iterator[None]:
    """Keeps other processes from the same model.

    Args:
        report: told that another process is waited for; None not to wait.

    Raises:
        filelock.Timeout: another process is at it, and it is not waited for.
    """
    path = folder / f".{name}.lock"
    lock: filelock.BaseFileLock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except (NotImplementedError, OSError) as error:
            if isinstance(error, filelock.Timeout) or (
                isinstance(error, OSError) and error.errno not in _NO_LOCKS
            ):
                raise
            # A file system without locks, as some network ones: the file itself is the lock then.
            lock = filelock.SoftFileLock(path.with_suffix(".held"))
            lock.acquire(timeout=0)
    except filelock.Timeout:
        if report is None:
            raise
        report("waiting", note="another process is pulling this model; waiting for it")
        lock.acquire()
    try:
        # The lock file stays: deleting one that another process has just opened would split it.
        yield
    finally:
        lock.release()
