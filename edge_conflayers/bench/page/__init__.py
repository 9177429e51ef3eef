"""A benchmark's report as a page that one can look at: one HTML file, and its figures as SVG.

- ``load``: a report out of a JSON file
- ``figures``: which figures there are, in order
- ``speedup``, ``acceptance``, ``time_split``, ``step_costs``, ``dropped``: one figure each
- ``style``: colours for light and dark, and what makes an SVG fit both
- ``write``: the page

Figures need matplotlib (`pip install 'edge-conflayers[report]'`).
"""

from __future__ import annotations

from edge_conflayers.extras import check_packages

_PACKAGES = ("matplotlib", "jinja2")


def check_extra() -> None:
    """See ``check_packages``."""
    check_packages("bench --report", "report", _PACKAGES)
