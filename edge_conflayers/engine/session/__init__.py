"""One text of a model in its KV cache: steps over it, drafts, their verification.

``TextSession`` is what every engine's session offers; the rest is llama.cpp's own:

- ``cached_text``: the text, its steps and their logits; ``session``: drafts and verification
- ``mask``: the layers that a step leaves out
- ``kv_cache``, ``context``: the cache's size, and llama.cpp's context
- ``kept_text``, ``read_batches``, ``saved_text``: what of a text is kept for the next
- ``exact_batch``: tokens that can be verified at once without a change of bits
- beside the text: ``probe`` (confidences of sub-layers), ``replay`` (a masked model's tokens along
  the text), ``branches`` (steps from given hidden states), ``next_state_head``, ``taught_exits``
"""

from edge_conflayers.engine.session.cached_text import CachedText
from edge_conflayers.engine.session.context import ContextFull
from edge_conflayers.engine.session.kv_cache import KVType
from edge_conflayers.engine.session.mask import NO_MASK, LayerMask
from edge_conflayers.engine.session.results import MOST_WRITTEN, Outputs
from edge_conflayers.engine.session.session import Session
from edge_conflayers.engine.session.text_session import TextSession

__all__ = [
    "MOST_WRITTEN",
    "NO_MASK",
    "CachedText",
    "ContextFull",
    "KVType",
    "LayerMask",
    "Outputs",
    "Session",
    "TextSession",
]
