"""The packages that only training needs, which not everybody installs."""

from __future__ import annotations

from edge_conflayers.extras import check_packages

_PACKAGES = ("gguf", "torch")


def check_extra() -> None:
    """See ``check_packages``."""
    check_packages("training", "train", _PACKAGES)
