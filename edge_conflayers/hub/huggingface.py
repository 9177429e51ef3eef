"""Models from Hugging Face: what a repository holds, and the route to one of its files.

``huggingface_hub`` knows the service: endpoint, tokens, redirects, errors. The bytes then come as
from any address (``url.py``), because the library begins a download that was killed anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edge_conflayers.errors import one_line
from edge_conflayers.hub.partial import Partial
from edge_conflayers.hub.progress import Reporter
from edge_conflayers.hub.reference import hub_endpoint
from edge_conflayers.hub.registry import HubSource
from edge_conflayers.hub.route import RouteFailed
from edge_conflayers.hub.url import CONNECT_SECONDS, Url

_TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class ListedFile:
    """A file of a repository. ``size`` is in bytes; ``sha256`` is None for files outside LFS."""

    name: str
    size: int | None
    sha256: str | None


class HuggingFace:
    """The route by Hugging Face.

    Args:
        source: which file.
    """

    title = "Hugging Face"

    def __init__(self, source: HubSource) -> None:
        self._source = source

    def fetch(self, partial: Partial, report: Reporter) -> None:
        """See ``Route``."""
        source = self._source
        hub = _online()
        url = hub.hf_hub_url(
            source.repo, source.file, revision=source.revision, endpoint=hub_endpoint()
        )
        try:
            about = hub.get_hf_file_metadata(url, timeout=_timeout())
            headers = hub.utils.build_hf_headers()
        except Exception as error:  # the library's own kinds differ between its versions
            _explain(error, source.repo, source.file)
        sha256 = about.etag if about.etag is not None and len(about.etag) == 64 else None
        if sha256 is not None and partial.identity not in (None, sha256):
            partial.restart()  # what was left is of another version of the file
        partial.expect(about.size, sha256)
        partial.identity = sha256 or partial.identity
        host = hub_endpoint()
        if about.location != url and not about.location.startswith(f"{host}/"):
            headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        Url(about.location, headers, self.title).fetch(partial, report)


def list_files(repo: str, revision: str) -> list[ListedFile]:
    """The files of a repository, with their sizes.

    Raises:
        RouteFailed: it does not exist, may not be read, or cannot be reached.
    """
    api = _online().HfApi(endpoint=hub_endpoint())
    try:
        about = api.model_info(repo, revision=revision, files_metadata=True, timeout=_timeout())
    except Exception as error:  # as above
        _explain(error, repo)
    return [
        ListedFile(file.rfilename, file.size, file.lfs["sha256"] if file.lfs else None)
        for file in about.siblings or ()
    ]


def download_file(
    repo: str, name: str, *, local_dir: str | Path | None, cache_dir: str | Path | None
) -> Path:
    """The path of a file as Hugging Face's library keeps it, which is downloaded if it has to be.

    Args:
        local_dir: a folder to put it in; None for the library's cache.
        cache_dir: of another cache.

    Raises:
        RouteFailed: it cannot be had.
    """
    try:
        return Path(
            _library().hf_hub_download(
                repo, name, local_dir=local_dir, cache_dir=cache_dir, endpoint=hub_endpoint()
            )
        )
    except Exception as error:  # as above
        _explain(error, repo, name)


def _library() -> Any:
    """``huggingface_hub``, imported only now: it takes half a second."""
    import huggingface_hub

    hub: Any = huggingface_hub
    hub.logging.set_verbosity_error()
    return hub


def _online() -> Any:
    """The library, where it may use the network.

    Raises:
        RouteFailed: the user says that it may not.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise RouteFailed("HF_HUB_OFFLINE is set; unset it to download")
    return _library()


def _timeout() -> float:
    """Seconds to wait for the service to answer."""
    given = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    return float(given) if given.isdigit() and int(given) > 0 else CONNECT_SECONDS


def _explain(error: Exception, repo: str, file: str | None = None) -> NoReturn:
    """Says in one line what is wrong, and what to do.

    Raises:
        RouteFailed: always.
    """
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    has_token = bool(_library().get_token())
    if isinstance(error, errors.GatedRepoError):
        token = "" if has_token else f", and set HF_TOKEN to a token of yours ({_TOKENS})"
        why = f"{repo} is gated: accept its terms at {hub_endpoint()}/{repo}{token}"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = f"{repo} has no such revision; check it"
    elif isinstance(error, errors.RepositoryNotFoundError):
        token = "with a token that may read it" if has_token else f"with HF_TOKEN set ({_TOKENS})"
        why = f"there is no {repo}, or it is private: check the name, or try {token}"
    elif isinstance(error, errors.EntryNotFoundError):
        why = f"{repo} has no file {file}; check its name"
    elif isinstance(error, errors.HFValidationError):
        why = f"{repo} cannot be the name of a repository; give org/name"
    elif status in (401, 403):
        token = "the token in HF_TOKEN is refused" if has_token else "a token is wanted in HF_TOKEN"
        why = f"{token}; make one that may read {repo} ({_TOKENS})"
    elif status == 429:
        more = "" if has_token else ", or with HF_TOKEN set"
        why = f"{hub_endpoint()} answers HTTP 429 (too many requests); try again later{more}"
    elif status == 404:
        why = f"{hub_endpoint()} answers HTTP 404; check the name, and HF_ENDPOINT if it is set"
    elif status is not None:
        why = f"{hub_endpoint()} answers HTTP {status}; try again later"
    elif isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        why = f"{hub_endpoint()} does not answer as Hugging Face does; check HF_ENDPOINT"
    else:
        cause = one_line(error) or type(error).__name__
        why = f"{hub_endpoint()} cannot be reached ({cause}); check the network or the proxy"
    raise RouteFailed(why) from error
