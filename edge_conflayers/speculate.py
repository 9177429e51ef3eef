"""The draft/verify loop.

A round: the drafter proposes tokens to follow the last one drawn, in a row or as a tree; one step
of the full model over all of them gives the logits after each; the user's sampler draws token by
token and goes on as long as it draws what was drafted. Every token of the text is thus drawn from
the full model's logits by the same sampler in the same order as in plain decoding (Leviathan et
al., arXiv 2211.17192, in the form that keeps the text of a seed), and a drafter can only change
how long that takes.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edge_conflayers.draft import ROOT, Draft, Round
from edge_conflayers.drafters import Drafter
from edge_conflayers.sampling import Sampler
from edge_conflayers.session import Session

# The CPU kernels take a step over more tokens for a prompt (ECL_SMALL_BATCH of native/src/kernels),
# whose results are not a one-token step's to the bit.
MOST_VERIFIED = 32

FULL_MODEL = "full"

FinishReason = Literal["end", "length", "context", "interrupted"]


@dataclass
class Stats:
    """What one generation did and what it cost, in seconds of wall time.

    Attributes:
        verify_seconds: steps of the full model, plain ones included.
        begin_seconds: of the drafter's preparation, after the prompt; not part of ``seconds``.
        search_seconds: everything that was spent on learning, skip sets and the rest.
        rounds: steps of the full model after the prompt.
        drafted, accepted: tokens, over all rounds.
        sources: of each token of the text, who proposed it; "full" for the full model's own.
        record: of each round, what was drafted and accepted, and its seconds.
    """

    prompt_tokens: int = 0
    tokens: int = 0
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
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


class _Clock:
    """Adds the time since it was last read to one field of the statistics."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats
        self.last = time.perf_counter()

    def charge(self, name: str) -> float:
        """The seconds that were added."""
        now = time.perf_counter()
        spent, self.last = now - self.last, now
        setattr(self.stats, name, getattr(self.stats, name) + spent)
        return spent


def generate(
    session: Session,
    prompt: Sequence[int],
    sampler: Sampler,
    *,
    drafter: Drafter | None = None,
    max_tokens: int | None = None,
    stats: Stats | None = None,
) -> Generator[int, None, None]:
    """Yields the tokens that the model writes after a prompt, each as soon as it is certain.

    Args:
        session: the prompt is added to what it holds; however the iteration ends, it then also
            holds the text less its last token.
        prompt: at least one token.
        drafter: None decodes plainly.
        max_tokens: None for as many as fit in the context.
        stats: filled in as it goes; complete when the iteration ends, however it ends.

    Raises:
        ContextFull: the prompt does not fit.
    """
    stats = stats if stats is not None else Stats()
    clock = _Clock(stats)
    session.read(prompt)
    sampler.read(prompt)
    stats.prompt_tokens = len(prompt)
    clock.charge("prompt_seconds")
    if drafter is not None:
        drafter.begin(session, prompt)
        clock.charge("begin_seconds")
    started = time.perf_counter()
    try:
        yield from _write(session, sampler, drafter, max_tokens, stats)
    finally:
        stats.seconds = time.perf_counter() - started
        if drafter is not None:
            stats.drafter = drafter.report()


def _write(
    session: Session,
    sampler: Sampler,
    drafter: Drafter | None,
    max_tokens: int | None,
    stats: Stats,
) -> Generator[int, None, None]:
    """The loop itself; the session's last step holds the logits for the first token."""
    limit = max_tokens if max_tokens is not None else session.n_ctx
    if limit <= 0:
        stats.finish_reason = "length"
        return
    clock = _Clock(stats)
    token = sampler.sample(session, -1)
    clock.charge("sample_seconds")
    pending = [token]  # the end of the text, drawn but not in the cache yet
    try:
        while True:
            stats.tokens += 1
            stats.sources.append(FULL_MODEL)
            finished = _finish_reason(session, pending, stats.tokens, limit)
            if finished is not None:
                stats.finish_reason = finished
                yield token
                return
            yield token
            clock.last = time.perf_counter()

            draft = Draft()
            if drafter is not None:
                most = _most_drafted(session, len(pending), limit - stats.tokens)
                draft = drafter.draft(session, pending, most).first(most)
            draft_seconds = clock.charge("draft_seconds")
            walk = _Walk(session, pending, draft)
            try:
                session.verify(pending, draft)
                verify_seconds = clock.charge("verify_seconds")
                stats.rounds += 1
                stats.drafted += len(draft.tokens)
                while walk.accepts(token := sampler.sample(session, walk.output)):
                    stats.accepted += 1
                    clock.charge("sample_seconds")
                    stats.tokens += 1
                    stats.sources.append(draft.source(walk.path[-1]))
                    if session.model.ends_text(token):
                        stats.finish_reason = "end"
                        yield token
                        return
                    yield token
                    clock.last = time.perf_counter()
            finally:
                verified, pending = tuple(pending), walk.settle()
            clock.charge("sample_seconds")
            path, written = tuple(walk.path), stats.tokens + 1
            round = Round(verified, draft, path, token, written, draft_seconds, verify_seconds)
            stats.record.append(_record(round))
            if drafter is not None:
                drafter.learn(session, round)
                clock.charge("search_seconds")
    finally:
        if len(pending) > 1:
            session.step(pending[:-1], outputs="none")


class _Walk:
    """The accepted path through a draft, and what of it stays in the cache. Made before the draft
    is verified.

    Cells of the draft's first row are those that plain decoding would have written. A branch off
    it loses its cells, and is verified once more with the next draft.
    """

    def __init__(self, session: Session, pending: Sequence[int], draft: Draft) -> None:
        self.path: list[int] = []
        self._session = session
        self._draft = draft
        self._pending = tuple(pending)
        self._row_begin = len(session) + len(pending)
        self._row = 0  # accepted tokens in the first row
        self._token = pending[-1]
        self._drawn = False  # the full model's own token, which ends the path

    @property
    def output(self) -> int:
        """Which of the step's logits the next token is drawn from."""
        return len(self._pending) + (self.path[-1] if self.path else ROOT)

    def accepts(self, token: int) -> bool:
        """Goes on to a drawn token, if it was drafted."""
        self._token = token
        child = self._draft.child(self.path[-1] if self.path else ROOT, token)
        if child is None:
            self._drawn = True
            return False
        self._row += child == self._row
        self.path.append(child)
        return True

    def settle(self) -> list[int]:
        """Forgets what was not accepted, and the last token of the text. Returns the end of the
        text, which is not in the cache."""
        if len(self._session) < self._row_begin:
            return list(self._pending)  # it was not verified
        known = len(self.path) if self._drawn else len(self.path) - 1
        if known < 0:  # nothing was drawn
            self._session.rollback(self._row_begin - 1)
            return [self._token]
        kept = min(self._row, known)
        self._session.rollback(self._row_begin + kept)
        return [*(self._draft.tokens[i] for i in self.path[kept:known]), self._token]


def _most_drafted(session: Session, n_pending: int, left: int) -> int:
    """Tokens that a draft may have, when ``left`` more tokens are wanted."""
    together = min(session.room, session.max_outputs, MOST_VERIFIED)
    return max(0, min(left - 1, together - n_pending))


def _record(round: Round) -> dict[str, Any]:
    draft = round.draft
    return {
        "pending": len(round.pending),
        "drafted": round.drafted,
        "accepted": round.accepted,
        "sources": sorted({draft.source(i) for i in range(round.drafted)}),
        "draft_seconds": round.draft_seconds,
        "verify_seconds": round.verify_seconds,
    }


def _finish_reason(
    session: Session, pending: Sequence[int], written: int, limit: int
) -> FinishReason | None:
    if session.model.ends_text(pending[-1]):
        return "end"
    if written >= limit:
        return "length"
    if session.room < len(pending):
        return "context"
    return None
