"""What a user may call a model: a file, a name of the registry, a Hugging Face repository, or an
address."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

from edge_conflayers.errors import BadInput

_REPO = re.compile(r"(?![.])([\w.-]+)/(?![.])([\w.-]+?)(?::([\w.-]+))?", re.ASCII)
_HUB_PATH = re.compile(r"/([\w.-]+/[\w.-]+)(?:/(?:resolve|blob|raw)/([^/]+)/(.+))?/?", re.ASCII)
_PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)
_PREFERRED = "Q4_K_M"  # as llama.cpp's -hf does
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_HUB = "https://huggingface.co"
MOST_PARTS = 1000
"""Parts that a split model may have."""


@dataclass(frozen=True)
class HubReference:
    """Model files in a Hugging Face repository.

    Attributes:
        repo: "org/name".
        quantization: such as "Q4_K_M"; None for the preferred one.
        file: the (first) file; None to choose by quantization.
        revision: branch, tag or commit.
    """

    repo: str
    quantization: str | None = None
    file: str | None = None
    revision: str = "main"

    def __str__(self) -> str:
        if self.file is not None:
            return f"{hub_endpoint()}/{self.repo}/blob/{self.revision}/{self.file}"
        return self.repo if self.quantization is None else f"{self.repo}:{self.quantization}"


@dataclass(frozen=True)
class UrlReference:
    """A .gguf file at an http(s) address; of a split model, its first part."""

    url: str

    def __str__(self) -> str:
        return self.url


def hub_endpoint() -> str:
    """Where Hugging Face is: HF_ENDPOINT, if it is set."""
    return (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")


def parse_reference(model: str) -> HubReference | UrlReference | None:
    """What a name that is neither a file nor in the registry means; None if nothing.

    Raises:
        BadInput: an address without a .gguf file.
    """
    if re.match(r"https?://", model, re.IGNORECASE):
        return _parse_url(model)
    match = _REPO.fullmatch(model)
    if match is None or model.lower().endswith(".gguf"):
        return None
    return HubReference(f"{match[1]}/{match[2]}", match[3])


def _parse_url(url: str) -> HubReference | UrlReference:
    parts = urllib.parse.urlsplit(url)
    hosts = {urllib.parse.urlsplit(hub).netloc for hub in (_HUB, "https://hf.co", hub_endpoint())}
    if parts.netloc in hosts:
        match = _HUB_PATH.fullmatch(urllib.parse.unquote(parts.path))
        if match is not None and (match[3] is None or match[3].lower().endswith(".gguf")):
            return HubReference(match[1], file=match[3], revision=match[2] or "main")
    if not parts.netloc or not parts.path.lower().endswith(".gguf"):
        raise BadInput(f"{url} does not name a .gguf file; give the address of one")
    return UrlReference(url)


def file_parts(file: str) -> list[str]:
    """All files of a model that begins with this one: itself, or its parts in order.

    Raises:
        BadInput: a part that is not the first, or a count that makes no sense.
    """
    match = _PART.fullmatch(file)
    if match is None:
        return [file]
    parts = int(match["parts"])
    if int(match["part"]) != 1 or not 0 < parts <= MOST_PARTS:
        raise BadInput(
            f"{file} is not the first part of a split model; give the one with 00001-of in its name"
        )
    return [f"{match['stem']}-{i:05d}-of-{parts:05d}{file[-5:]}" for i in range(1, parts + 1)]


def choose_files(repo: str, files: Sequence[str], quantization: str | None) -> list[str]:
    """The files of a repository's model in a quantization, parts in order, as llama.cpp's ``-hf``
    chooses: without one Q4_K_M, else the first GGUF file that there is.

    Raises:
        BadInput: there is none, or a part is missing.
    """
    models = [f for f in files if f.lower().endswith(".gguf") and not _NO_MODEL.search(f)]
    first = [f for f in models if (part := _PART.fullmatch(f)) is None or int(part["part"]) == 1]
    if not first:
        raise BadInput(f"{repo} holds no GGUF model; choose a repository that does (often *-GGUF)")
    chosen = _with_tag(first, quantization or _PREFERRED)
    if chosen is None:
        if quantization is not None:
            raise BadInput(
                f"{repo} has no {quantization}; it has {', '.join(quantizations(first))}"
            )
        chosen = first[0]
    parts = file_parts(chosen)
    missing = [part for part in parts if part not in files]
    if missing:
        raise BadInput(f"{repo} lacks {missing[0]}, a part of {chosen}; choose another file")
    return parts


def _with_tag(files: Sequence[str], tag: str) -> str | None:
    # As a whole word: Q4_K is not in Q4_K_M.
    pattern = re.compile(rf"(?<![a-z0-9_]){re.escape(tag)}(?![a-z0-9_])", re.IGNORECASE)
    by_name = (f for f in files if pattern.search(f.rpartition("/")[2]))
    return next(by_name, None) or next((f for f in files if pattern.search(f)), None)


def quantizations(files: Sequence[str]) -> list[str]:
    """What the names of GGUF files say of their quantization; the whole name of one that says
    nothing."""
    pattern = re.compile(r"(?<![a-z0-9])((?:IQ|TQ|Q)\d\w*|BF16|F16|F32|MXFP4\w*)", re.IGNORECASE)
    found: dict[str, None] = {}
    for file in files:
        stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", file, flags=re.IGNORECASE)
        tags = pattern.findall(stem)
        found[tags[-1] if tags else file] = None
    return list(found)
