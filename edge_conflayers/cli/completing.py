"""What the shell completes: models, methods and names that options take. It loads no library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.hub import models as store
from edge_conflayers.hub.registry import registry
from edge_conflayers.hub.wanted import pulled_elsewhere

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(names: Mapping[str, str] | Iterable[str], *, or_file: bool = False) -> Completer:
    """Completes one of some names.

    Args:
        names: with what they mean, if that is known.
        or_file: a file's name may stand instead.
    """
    means = names if isinstance(names, Mapping) else dict.fromkeys(names, "")

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        items = _items(means, incomplete)
        # The shell's own files come first: its script forgets what came before them.
        return [CompletionItem(incomplete, type="file"), *items] if or_file else items

    return complete


def some_of(names: Iterable[str]) -> Completer:
    """Completes the last name of a list with commas."""
    known = tuple(names)

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        left = [name for name in known if name not in given]
        return [CompletionItem(f"{before}{comma}{name}") for name in left if name.startswith(last)]

    return complete


class ModelName(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A model as a user names it. Completed by the names of `models list`, others that are pulled,
    .gguf files, and folders that `export` wrote.

    Args:
        only: a name that `models` knows is wanted, of any model or of one that is pulled.
    """

    name = "model"

    def __init__(self, only: str = "") -> None:
        self._only = only

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        items = _items(dict(_known_models(pulled=self._only == "pulled")), incomplete)
        if not self._only:
            items += [CompletionItem(path) for path in model_files(incomplete)]
        return items


def _items(means: Mapping[str, str], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(name, help=meaning or None)
        for name, meaning in means.items()
        if name.startswith(incomplete)
    ]


def _known_models(*, pulled: bool) -> Iterator[tuple[str, str]]:
    """Names of models, and what they are; nothing where that cannot be found out."""
    with contextlib.suppress(EdgeConflayersError, OSError):
        for name, info in registry().items():
            if not pulled or store.cached_path(name) is not None:
                yield name, info.description
        for model in pulled_elsewhere():
            yield model.name, "pulled"


def model_files(incomplete: str) -> list[str]:
    """The models that a path may become: .gguf files, exported folders, and folders on the way. The
    only folder is gone into, so that the shell does not take the path for complete."""
    found = _entries(incomplete)
    while len(found) == 1 and found[0].endswith("/") and (inside := _entries(found[0])):
        found = inside
    return found


def _entries(incomplete: str) -> list[str]:
    folder, slash, begin = incomplete.rpartition("/")
    hidden = begin.startswith(".")
    try:
        with os.scandir(Path(folder + slash).expanduser()) as entries:
            names = sorted(
                (each.name, each.is_dir())
                for each in entries
                if each.name.startswith(begin) and each.name.startswith(".") == hidden
            )
    except (OSError, RuntimeError, ValueError):  # no such folder, or no home
        return []
    paths = []
    for name, is_folder in names:
        path = f"{folder}{slash}{name}"
        if is_folder:
            exported = (Path(path).expanduser() / store.EXPORTED).is_file()
            paths.append(path if exported else f"{path}/")
        elif name.lower().endswith(".gguf"):
            paths.append(path)
    return paths
