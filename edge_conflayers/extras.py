"""Packages that not everybody installs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from edge_conflayers.errors import BadInput


def check_packages(what: str, extra: str, packages: Sequence[str]) -> None:
    """Makes sure that packages are there, before a module that imports them is imported.

    Args:
        what: needs them.
        extra: of this package, which installs them.

    Raises:
        BadInput: one of them is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise BadInput(
            f"{what} needs {', '.join(missing)}; run `pip install 'edge-conflayers[{extra}]'`"
        )
