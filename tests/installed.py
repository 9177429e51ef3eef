"""Where the package under test lies, for tests that start a Python of their own."""

from __future__ import annotations

from pathlib import Path

import edge_conflayers

PACKAGE = Path(edge_conflayers.__file__).parent.parent
"""The folder to start it in: that of the installed package, or the checkout. Started in a checkout,
Python would import that, which has no library where the package is installed."""
