"""Drafts over bridges along a text that is there already, as records of the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_conflayers.bridges.bridge import Floats
from edge_conflayers.bridges.streams import Streams
from edge_conflayers.engine.session import LayerMask, Session
from edge_conflayers.engine.session.bridges import draft_beside
from edge_conflayers.layer_search.objective import Record

LONGEST = 8
"""Most tokens of a replayed draft; not tuned."""
_UNSURE = 0.2  # probability under which a replayed draft ends; the objective's lowest but 0


@dataclass(frozen=True, eq=False)
class Text:
    """A text to replay drafts along.

    Attributes:
        session: holds the text.
        begin: position of the first token to predict, at least 2.
        streams: what entered each layer at each token.
    """

    session: Session
    begin: int
    streams: Streams

    def before(self, position: int, blocks: Sequence[tuple[int, int]]) -> Floats:
        """``bridge_states`` of the token before a position, for a draft that begins there."""
        ends = [list(block) for block in blocks]
        states: Floats = self.streams[ends, position - 1].astype("float32")
        return states[None]


def replay_drafts(
    text: Text, mask: LayerMask, blocks: Sequence[tuple[int, int]], most: int
) -> list[Record]:
    """Drafts round after round along a text, with the bridges that the session has.

    A draft follows the text's own token, not one of the draft before, and ends with the first token
    that is not the text's; the next one begins there. So each position has one record, as deep in a
    draft as it would be.

    Args:
        mask: the layers that drafts leave out.
        blocks: those that bridges replace, begin and end; none to draft without bridges.
        most: most positions.

    Returns:
        The records of the text's tokens, in order; fewer where the cache has no room.
    """
    tokens = text.session.tokens
    end = min(len(tokens), text.begin + most)
    records: list[Record] = []
    while (position := text.begin + len(records)) < end:
        drafted = draft_beside(
            text.session,
            mask,
            position - 1,
            text.before(position - 1, blocks) if blocks else None,
            limit=min(LONGEST, end - position),
            stop_probability=_UNSURE,
        )
        if not drafted:
            break
        for (token, probability), really in zip(drafted, tokens[position:], strict=False):
            records.append(Record(token == really, probability))
            if token != really:
                break
    return records
