"""The packages that only the server needs, which not everybody installs."""

from __future__ import annotations

from edge_conflayers.extras import check_packages

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def check_extra() -> None:
    """See ``check_packages``."""
    check_packages("serve", "server", _PACKAGES)
