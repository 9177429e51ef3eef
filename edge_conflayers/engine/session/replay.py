"""Replay: the tokens that a masked model predicts along a text that is there already."""

from __future__ import annotations

from edge_conflayers.engine import binding
from edge_conflayers.engine.native import llama
from edge_conflayers.engine.session.arrays import int32_array
from edge_conflayers.engine.session.cached_text import SIDE_SEQUENCE, CachedText
from edge_conflayers.engine.session.checks import check_positions
from edge_conflayers.engine.session.mask import LayerMask
from edge_conflayers.engine.session.results import MOST_REPLAYED


def replay(
    session: CachedText,
    mask: LayerMask,
    begin: int,
    end: int | None = None,
    *,
    stretch: int | None = None,
) -> list[tuple[int, float]] | None:
    """See ``TextSession.replay``."""
    end = len(session.tokens) if end is None else end
    check_positions(begin, end, len(session.tokens))
    if not session.has_window_before(begin - 1):
        return None
    size = min(stretch or MOST_REPLAYED, MOST_REPLAYED, session.max_outputs)
    predictions: list[tuple[int, float]] = []
    before = session.mask
    session.set_mask(mask)
    try:
        llama.llama_memory_seq_cp(session.context.memory, 0, SIDE_SEQUENCE, 0, begin - 1)
        for first in range(begin - 1, end - 1, size):
            if stretch is not None and first >= begin:
                llama.llama_memory_seq_rm(session.context.memory, SIDE_SEQUENCE, -1, -1)
                llama.llama_memory_seq_cp(session.context.memory, 0, SIDE_SEQUENCE, 0, first)
            last = min(first + size, end - 1)
            part = int32_array(session.tokens[first:last])
            status = binding.ecl_step(
                session.handle, part, len(part), first, SIDE_SEQUENCE, binding.OUTPUTS_ALL
            )
            if status == binding.NO_ROOM:
                return None
            session.context.check(status)
            predictions += [session.best(i) for i in range(len(part))]
    finally:
        llama.llama_memory_seq_rm(session.context.memory, SIDE_SEQUENCE, -1, -1)
        session.set_mask(before)
    return predictions
