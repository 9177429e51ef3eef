"""The packages that only training needs, which not everybody installs."""

from __future__ import annotations

from importlib.util import find_spec

from edge_conflayers.errors import BadInput

_PACKAGES = ("gguf", "torch")


def check_extra() -> None:
    """Makes sure that the packages are there, before a module that imports them is imported.

    Raises:
        BadInput: one of them is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise BadInput(
            f"training needs {' and '.join(missing)}; run `pip install 'edge-conflayers[train]'`"
        )
