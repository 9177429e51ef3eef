"""What a download route is: the one interface behind which Hugging Face, the package index and
plain URLs stand."""

from __future__ import annotations

from typing import Protocol

from edge_conflayers.hub.partial import Partial
from edge_conflayers.hub.progress import Reporter


class RouteFailed(Exception):
    """A route cannot deliver the file; another may. The message says why and what to do."""


class Route(Protocol):
    """A way to get a file."""

    title: str
    """What people call it, such as "Hugging Face"."""

    def fetch(self, partial: Partial, report: Reporter) -> None:
        """Appends to an unfinished file until it is complete, from where it ends now.

        Raises:
            RouteFailed: this route cannot do it; what ``partial`` holds can be gone on with.
            EdgeConflayersError: there is no room for the file.
            OSError: it cannot be written.
        """
        ...
