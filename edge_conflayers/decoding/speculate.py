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

from edge_conflayers.decoding.drafter import Drafter, Pause, PausingDrafter
from edge_conflayers.decoding.round import Round
from edge_conflayers.decoding.stats import FULL_MODEL, Clock, FinishReason, Stats
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.sampling import Sampler
from edge_conflayers.engine.session import MOST_WRITTEN, Session

# Of plain decoding in one call, after which its tokens are handed out: too short to be seen.
_STRETCH_SECONDS = 0.02
_ALL = Pause(MOST_WRITTEN)
_NO_DRAFT = Draft()


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
        sampler: may have drawn some tokens more if the iteration is ended early.
        drafter: None decodes plainly; so does any where the session does not verify drafts.
        max_tokens: None for as many as fit in the context.
        stats: filled in as it goes; complete when the iteration ends, however it ends.

    Raises:
        ContextFull: the prompt does not fit.
    """
    stats = stats if stats is not None else Stats()
    clock = Clock(stats)
    if drafter is not None and not session.verifies_drafts:
        drafter = None
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
    clock = Clock(stats)
    token = sampler.sample(session, -1)
    clock.charge("sample_seconds")
    pending = [token]  # the end of the text, drawn but not in the cache yet
    pausing = drafter if isinstance(drafter, PausingDrafter) else None
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

            if drafter is None:
                pause: Pause | None = _ALL
            else:
                pause = pausing.pause() if pausing is not None else None
            if pause is not None:
                yield from _write_plainly(
                    session, sampler, pending, limit, pause, pausing, stats, clock
                )
                token = pending[-1]
                continue

            assert drafter is not None
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
            stats.count(round)
            drafter.learn(session, round)
            clock.charge("search_seconds")
    finally:
        if len(pending) > 1:
            session.step(pending[:-1], outputs="none")


def _write_plainly(
    session: Session,
    sampler: Sampler,
    pending: list[int],
    limit: int,
    pause: Pause,
    drafter: PausingDrafter | None,
    stats: Stats,
    clock: Clock,
) -> Generator[int, None, None]:
    """Rounds without a draft. Yields their tokens but for the last, which is then ``pending``."""
    begin, shown = len(session), 0
    rounds: list[Round] = []
    try:
        stretch = session.write(
            pending,
            sampler.native,
            most=min(pause.rounds, limit - stats.tokens),
            seconds=_STRETCH_SECONDS,
            following=[source.handle for source in pause.following],
            expected=pause.expected,
        )
        clock.charge("sample_seconds")
        verify_seconds = sum(stretch.seconds)
        stats.sample_seconds -= verify_seconds
        stats.verify_seconds += verify_seconds
        read = tuple(pending)
        for token, seconds in zip(stretch.tokens, stretch.seconds, strict=True):
            written = stats.tokens + len(rounds) + 1
            rounds.append(Round(read, _NO_DRAFT, (), token, written, 0.0, seconds))
            read = (token,)
        if drafter is not None:
            drafter.passed(session, rounds, stretch.called)
            clock.charge("search_seconds")
        for round in rounds:
            stats.rounds += 1
            stats.count(round)
            shown += 1
            if shown < len(rounds):
                stats.tokens += 1
                stats.sources.append(FULL_MODEL)
                yield round.token
                clock.last = time.perf_counter()
    finally:
        if len(session) > begin:
            session.rollback(begin + len(pending) - 1 + shown)
            pending[:] = [rounds[shown - 1].token if shown else pending[-1]]


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
    return max(0, min(left - 1, session.most_verified - n_pending))


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
