"""Who finds skip sets: one module per published search, all behind `SkipSetSearch`."""

from __future__ import annotations

from typing import Any, Protocol

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import LayerMask, Session


class SkipSetSearch(Protocol):
    """A search for the sub-layers to drop that can run during generation.

    After each round the drafter calls `observe`, then `advance`, and drafts with `mask`.
    """

    @property
    def mask(self) -> LayerMask:
        """What to drop in the next draft; empty means: draft nothing."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the search has stopped; `mask` stays as it is from then on."""
        ...

    def observe(self, round: Round) -> None:
        """Hear what became of a round. Runs nothing on the model."""
        ...

    def advance(self, session: Session) -> None:
        """Go on searching by at most one candidate, if it is time to. May run steps of the model
        in a sequence of its own; leaves the session's text as it is."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything the search knows, JSON-able, for the profile."""
        ...


class PacedSearch(SkipSetSearch, Protocol):
    """A search that finds the length of drafts together with the set."""

    @property
    def draft_length(self) -> int:
        """Tokens to draft in a round with `mask`."""
        ...
