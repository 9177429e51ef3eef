"""A masked model's tokens along a text that is there already, and SWIFT's matchness of them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.layer_search.objective import Record


def replay_records(
    session: TextSession,
    mask: LayerMask,
    begin: int,
    end: int | None = None,
    *,
    stretch: int | None = None,
) -> list[Record] | None:
    """Replays a mask over positions ``begin`` to ``end`` (None: all) of the session's text.

    Args:
        stretch: positions after which the masked model goes on from the full model's keys and
            values, as drafting does after each verification; None for never, as in SWIFT.

    Returns:
        One record for each position, in order; None if the cache has no room for them.

    Raises:
        as ``TextSession.replay`` does.
    """
    predictions = session.replay(mask, begin, end, stretch=stretch)
    if predictions is None:
        return None
    text = session.tokens[begin:end]
    return [
        Record(token == really, probability)
        for (token, probability), really in zip(predictions, text, strict=True)
    ]


def matchness(records: Sequence[Record]) -> float:
    """The share of positions that match, 0 to 1 (SWIFT, arXiv 2410.06916); at least one record."""
    return sum(record.matches for record in records) / len(records)
