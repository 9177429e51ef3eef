"""A folder that gets its name when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line
from edge_conflayers.hub.room import NO_ROOM

_LOCK = ".lock"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder beside the wanted one, which gets its name in the end.

    After a failure or an interrupt nothing is left of it. What a killed process left, the next one
    that wants the same name deletes.

    Args:
        folder: does not exist, or is empty.

    Raises:
        BadInput: it is not empty, another process writes it, or it can't be written.
        EdgeConflayersError: there is no room.
    """
    check_new(folder)
    folder = Path(os.path.realpath(folder))
    work = folder.with_name(f".{folder.name}.part")
    lock = FileLock(work / _LOCK, blocking=False)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BadInput(f"{folder} is being written by another process; wait for it") from None
    except OSError as error:
        raise _trouble(folder, error) from None
    try:
        _empty(work)
        yield work
        lock.release()
        (work / _LOCK).unlink(missing_ok=True)
        if folder.exists():
            folder.rmdir()  # empty; Windows does not replace it
        os.replace(work, folder)
    except OSError as error:
        raise _trouble(folder, error) from None
    finally:
        lock.release()
        shutil.rmtree(work, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Refuses a folder that holds something already.

    Raises:
        BadInput: it does, or it is a file or the working folder.
    """
    if os.path.realpath(folder) == os.path.realpath(os.curdir):
        raise BadInput("the folder that you are in can't be written anew; name another")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not an empty folder; name a new one")


def check_room(folder: Path, wanted: int) -> None:
    """Refuses to write more than there is room for.

    Args:
        folder: is there already.
        wanted: bytes.

    Raises:
        EdgeConflayersError: there is too little room.
    """
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise EdgeConflayersError(
            f"no room: {wanted / 1e6:.0f} MB are wanted, {free / 1e6:.0f} MB are free;"
            " free some, or name a folder on another disk"
        )


def _empty(work: Path) -> None:
    for left in work.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != _LOCK:
            left.unlink()


def _trouble(folder: Path, error: OSError) -> EdgeConflayersError:
    if error.errno in NO_ROOM:
        return EdgeConflayersError(
            f"no room for {folder} ({error.strerror}); free some, or name a folder on another disk"
        )
    return BadInput(f"{folder} can't be written ({one_line(error)}); name another folder")
