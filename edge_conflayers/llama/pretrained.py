"""Files of Hugging Face, in Hugging Face's own cache or a folder of the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.hub.huggingface import download_file, list_files
from edge_conflayers.hub.route import RouteFailed
from edge_conflayers.llama.errors import BadValue

_WILDCARDS = "*?["


def download(
    repo: str,
    patterns: Sequence[str],
    *,
    local_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> list[Path]:
    """Paths of a repository's files, which are downloaded if they have to be.

    Args:
        patterns: names of files, or patterns that one file each matches.

    Raises:
        BadValue: no file matches one, or several do.
        EdgeConflayersError: the repository cannot be read.
    """
    names = list(patterns)
    try:
        if any(mark in each for each in names for mark in _WILDCARDS):
            listed = [each.name for each in list_files(repo, "main")]
            names = [_matching(each, listed, repo) for each in names]
        return [
            download_file(repo, name, local_dir=local_dir, cache_dir=cache_dir) for name in names
        ]
    except RouteFailed as error:
        raise EdgeConflayersError(f"{repo} cannot be downloaded: {error}") from error


def _matching(pattern: str, names: Sequence[str], repo: str) -> str:
    found = [name for name in names if fnmatch(name, pattern)]
    if len(found) == 1:
        return found[0]
    many = "Multiple files" if found else "No file"
    raise BadValue(
        f"{many} found in {repo} that match {pattern}; give one of {', '.join(found or names)}"
    )
