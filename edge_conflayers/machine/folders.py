"""The user's folders for pulled models and for what was learned."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from edge_conflayers.errors import BadInput

CACHE_VARIABLE = "EDGE_CONFLAYERS_CACHE"
DATA_VARIABLE = "EDGE_CONFLAYERS_DATA"
_NAME = "edge-conflayers"


def cache_folder() -> Path:
    """``EDGE_CONFLAYERS_CACHE`` if set, else in the user's cache folder.

    Raises:
        BadInput: there is neither the variable nor a home folder.
    """
    return _folder(CACHE_VARIABLE, lambda: platformdirs.user_cache_dir(_NAME))


def data_folder() -> Path:
    """``EDGE_CONFLAYERS_DATA`` if set, else in the user's data folder.

    Raises:
        BadInput: there is neither the variable nor a home folder.
    """
    return _folder(DATA_VARIABLE, lambda: platformdirs.user_data_dir(_NAME, False))


def _folder(variable: str, usual: Callable[[], str]) -> Path:
    given = os.environ.get(variable)
    if given:
        return Path(given)
    try:
        folder = Path(usual())
    except RuntimeError:  # of platformdirs, for a user without HOME who is not in the user database
        folder = Path("~")
    if folder.parts[0] == "~":  # as older ones leave it then
        raise BadInput(f"there is no home folder; set {variable} to a folder that can be written")
    return folder
