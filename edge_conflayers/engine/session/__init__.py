"""One text of a model: steps over it, drafts to follow it, and readings of the model beside it."""

from edge_conflayers.engine.session.cached_text import CachedText, Outputs
from edge_conflayers.engine.session.context import ContextFull
from edge_conflayers.engine.session.kv_cache import KVType
from edge_conflayers.engine.session.mask import NO_MASK, LayerMask
from edge_conflayers.engine.session.session import MOST_WRITTEN, Session

__all__ = [
    "MOST_WRITTEN",
    "NO_MASK",
    "CachedText",
    "ContextFull",
    "KVType",
    "LayerMask",
    "Outputs",
    "Session",
]
