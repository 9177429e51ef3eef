"""A text that is being written, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_conflayers.decoding.stats import Clock, FinishReason, Stats
from edge_conflayers.engine.sampling import Sampler
from edge_conflayers.engine.session import TextSession


@dataclass
class Writing:
    """A text that is being written.

    Attributes:
        limit: tokens after which it ends.
        pending: the end of the text, at least one token: drawn, but not in the cache yet.
    """

    session: TextSession
    sampler: Sampler
    limit: int
    stats: Stats
    clock: Clock
    pending: list[int] = field(default_factory=list)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ends here; None if it goes on."""
        if self.session.model.ends_text(self.pending[-1]):
            return "end"
        if self.stats.tokens >= self.limit:
            return "length"
        if self.session.room < len(self.pending):
            return "context"
        return None

    @property
    def max_drafted(self) -> int:
        """Most tokens that the next draft may have."""
        room = self.session.most_verified - len(self.pending)
        return max(0, min(self.limit - self.stats.tokens - 1, room))
