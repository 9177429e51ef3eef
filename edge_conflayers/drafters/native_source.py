"""Sources of candidates that the library keeps."""

from __future__ import annotations

import ctypes
import weakref

from edge_conflayers.engine import binding
from edge_conflayers.engine.draft import Draft
from edge_conflayers.errors import EdgeConflayersError

MOST_CANDIDATES = 24
"""Of one source."""


class NativeSource:
    """A ``CandidateSource`` that the library keeps, but for following a session. It takes
    microseconds.

    Args:
        name: the ``source`` of its drafted tokens.
        handle: an ``ecl_source``, which is freed with this object.
    """

    weighed_seconds = 0.0
    calibrated = False
    learns_always = False

    def __init__(self, name: str, handle: int | None) -> None:
        if not handle:
            raise EdgeConflayersError("there is no memory for a source of candidates")
        self.name = name
        self.handle = handle
        weakref.finalize(self, binding.ecl_source_free, handle).atexit = False

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        """As ``CandidateSource.candidates``."""
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
    """Always proposes out of one draft.

    Raises:
        ValueError: a node before its parent, or a probability that cannot be.
    """

    def __init__(self, name: str, draft: Draft) -> None:
        n = len(draft.tokens)
        handle = binding.ecl_given_new(
            (ctypes.c_int32 * n)(*draft.tokens),
            (ctypes.c_double * n)(*draft.probabilities),
            (ctypes.c_int32 * n)(*(draft.parent(i) for i in range(n))),
            n,
        )
        if not handle:
            raise ValueError("no tree of candidates")
        super().__init__(name, handle)
