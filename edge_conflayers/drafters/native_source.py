"""Sources whose candidates the library holds."""

from __future__ import annotations

import ctypes
import weakref

from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft
from edge_conflayers.errors import EdgeConflayersError

MAX_CANDIDATES = 24
"""Most candidates of one source: as many as the largest verification holds."""


class NativeSource:
    """A ``CandidateSource`` but for following a text and learning; asking it takes microseconds.

    Args:
        name: the ``source`` of its drafted tokens.
        handle: an ``ecl_source``, which is freed with this object.
    """

    self_calibrated = False
    learns_always = False

    def __init__(self, name: str, handle: int | None) -> None:
        if not handle:
            raise EdgeConflayersError("there is no memory for a source of candidates")
        self.name = name
        self.handle = handle
        weakref.finalize(self, binding.ecl_source_free, handle).atexit = False

    def look_ahead(self) -> float:
        """See ``CandidateSource.look_ahead``; the library works them out when it is asked."""
        return 0.0

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        """See ``CandidateSource.candidates``."""
        limit = max(limit, 0)
        tokens, parents = (ctypes.c_int32 * limit)(), (ctypes.c_int32 * limit)()
        probabilities = (ctypes.c_double * limit)()
        n = binding.ecl_source_candidates(
            self.handle, limit, least, chain, tokens, probabilities, parents
        )
        if n < 0:
            raise EdgeConflayersError("there is no memory for candidates")
        return Draft(
            tuple(tokens[:n]), tuple(probabilities[:n]), tuple(parents[:n]), (self.name,) * n
        )


class GivenSource(NativeSource):
    """Proposes out of the draft that it was given last; of none at first."""

    def __init__(self, name: str) -> None:
        super().__init__(name, binding.ecl_given_new(None, None, None, 0))

    def give(self, draft: Draft) -> None:
        """Replaces the draft.

        Raises:
            ValueError: a node before its parent, or a probability outside (0, 1].
        """
        n = len(draft.tokens)
        if binding.ecl_given_set(
            self.handle,
            (ctypes.c_int32 * n)(*draft.tokens),
            (ctypes.c_double * n)(*draft.probabilities),
            (ctypes.c_int32 * n)(*(draft.parent(i) for i in range(n))),
            n,
        ):
            raise ValueError("no tree of candidates")
