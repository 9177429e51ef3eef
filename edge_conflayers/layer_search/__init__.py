"""Searches for skip sets: the layers or sub-layers to drop in drafts.

The published methods, one file a paper, in ``published/``:

- ``conflayers``: ConfLayers (arXiv 2604.14612); its formulas are in ``conflayers_selection``
- ``swift``: SWIFT (arXiv 2410.06916); its Bayesian optimisation is in ``gaussian_process``
- ``clasp``: CLaSp (arXiv 2505.24196)
- ``knapspec``: KnapSpec (arXiv 2602.20217)

What ``auto``, ``measured`` and ``tune`` search with:

- ``objective``: predicted tokens per second of drafting with a set, which all sets are judged by
- ``measured``: the search itself; ``online_measured``: the same during generation
- ``ranking``: the order in which it tries sub-layers
- ``search_by_kind``, ``skip_sets``, ``prompt_kinds``: sets by kind of prompt, from text to text

And what they share: ``replays`` (a masked model's tokens along a text that is there already),
``sublayers`` (sets as searches count them), ``masks`` (masks in a profile).
"""

from __future__ import annotations

from typing import Any, Protocol

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import LayerMask, TextSession


class SkipSetSearch(Protocol):
    """A search for skip sets that can run during generation.

    After each round the drafter calls ``observe``, then ``advance``, and drafts with ``mask``.
    """

    @property
    def mask(self) -> LayerMask:
        """What to drop in the next draft; empty means: draft nothing."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the search has stopped; ``mask`` stays as it is from then on."""
        ...

    def observe(self, round: Round) -> None:
        """Learns from a finished round. Runs nothing on the model."""
        ...

    def advance(self, session: TextSession) -> None:
        """Goes on searching by at most one candidate, if it is time to. May run steps of the model
        in a sequence of its own; leaves the session's text as it is."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything learned so far, JSON-able, for the profile."""
        ...


class PacedSearch(SkipSetSearch, Protocol):
    """A search that chooses the length of drafts together with the set."""

    @property
    def draft_length(self) -> int:
        """Tokens to draft in a round with ``mask``."""
        ...
