"""What one generation did and what it cost."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft

FULL_MODEL = "full"

FinishReason = Literal["end", "stop", "length", "context", "interrupted"]
"""An end-of-text token, a stop string, max_tokens, a full context, or whoever took the tokens."""


@dataclass
class Stats:
    """What one generation did and what it cost, in seconds of wall time.

    Attributes:
        prompt_tokens, tokens: tokens of the prompt and of the text.
        cached_tokens: those of the prompt that the cache still held from the text before.
        rounds: full-model steps after the prompt.
        drafted, accepted: tokens, over all rounds.
        drafted_at, accepted_at: by position in a draft, the first first: rounds that drafted so
            far, and rounds whose token there was accepted. Where drafts are trees, a position is a
            depth.
        prompt_seconds: reading the prompt.
        begin_seconds: the drafter's preparation after the prompt; not part of ``seconds``.
        seconds: writing the text, which the next four are part of.
        draft_seconds: drafting.
        verify_seconds: full-model steps, plain ones included.
        search_seconds: learning from rounds, and searching for skip sets.
        sample_seconds: drawing tokens.
        finish_reason: why the text ends.
        drafter: the drafter's report.
        sources: who proposed each token of the text; "full" for the full model itself.
        record: what each round drafted and accepted, and its seconds.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    prompt_seconds: float = 0.0
    begin_seconds: float = 0.0
    seconds: float = 0.0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    search_seconds: float = 0.0
    sample_seconds: float = 0.0
    finish_reason: FinishReason = "interrupted"
    drafter: dict[str, Any] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    record: list[dict[str, Any]] = field(default_factory=list)

    def add_token(self, source: str) -> None:
        """Counts one more token of the text."""
        self.tokens += 1
        self.sources.append(source)

    def add_draft(self, draft: Draft) -> None:
        """Counts a round by what it has verified."""
        self.rounds += 1
        self.drafted += len(draft.tokens)
        depth = draft.depth
        while len(self.drafted_at) < depth:
            self.drafted_at.append(0)
            self.accepted_at.append(0)
        for position in range(depth):
            self.drafted_at[position] += 1

    def add_accepted(self, position: int) -> None:
        """Counts a token at this position of the last draft as accepted."""
        self.accepted += 1
        self.accepted_at[position] += 1

    def add_round(self, round: Round) -> None:
        """Records a round that is over."""
        draft = round.draft
        self.record.append(
            {
                "pending": len(round.pending),
                "drafted": round.drafted,
                "accepted": round.accepted,
                "sources": sorted({draft.source(i) for i in range(round.drafted)}),
                "draft_seconds": round.draft_seconds,
                "verify_seconds": round.verify_seconds,
            }
        )

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens_per_round(self) -> float:
        return self.tokens / self.rounds if self.rounds else 0.0

    @property
    def acceptance_rate(self) -> float | None:
        """Share of drafted tokens that were accepted; None if none was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "tokens_per_second": self.tokens_per_second,
            "tokens_per_round": self.tokens_per_round,
            "acceptance_rate": self.acceptance_rate,
        }


class Clock:
    """Adds the time since it was last read to a field of the statistics."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats
        self.last = time.perf_counter()

    def resume(self) -> None:
        """Goes on, after whoever takes the tokens has had the time."""
        self.last = time.perf_counter()

    def charge(self, name: str) -> float:
        """Adds the time to this field; returns it."""
        now = time.perf_counter()
        spent, self.last = now - self.last, now
        setattr(self.stats, name, getattr(self.stats, name) + spent)
        return spent
