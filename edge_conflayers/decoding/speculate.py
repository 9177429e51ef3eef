"""The draft/verify loop (Leviathan et al., arXiv 2211.17192, in the form that keeps a seed's text).

A round: the drafter proposes tokens to follow the last one drawn, as a chain or a tree; one step of
the full model over all of them gives the logits after each; the user's sampler draws token by token
and goes on as long as it draws what was drafted. So every token of the text is drawn from the full
model's logits by the same sampler in the same order as in plain decoding, and a drafter can only
change how long that takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence

import numpy as np

from edge_conflayers.decoding.accepted_path import AcceptedPath
from edge_conflayers.decoding.drafter import BackOff, Drafter, PollingDrafter
from edge_conflayers.decoding.plain import decode_plainly
from edge_conflayers.decoding.round import Round
from edge_conflayers.decoding.stats import FULL_MODEL, Clock, Stats
from edge_conflayers.decoding.writing import Writing
from edge_conflayers.engine.sampling import Sampler
from edge_conflayers.engine.session import MOST_WRITTEN, TextSession
from edge_conflayers.errors import BadInput

_NEVER_DRAFT = BackOff(MOST_WRITTEN)


def generate(
    session: TextSession,
    prompt: Sequence[int],
    sampler: Sampler,
    *,
    kept: int = 0,
    before_batch: Callable[[], None] = lambda: None,
    drafter: Drafter | None = None,
    max_tokens: int | None = None,
    stats: Stats | None = None,
) -> Generator[int, None, None]:
    """Yields the tokens that the model writes after a prompt, each as soon as it is certain.

    Args:
        session: the prompt is added to what it holds. However the iteration ends, it then also
            holds the text, less its last token.
        prompt: at least one token.
        kept: tokens of the prompt that are what the session holds, and are not read again.
        before_batch: as for ``TextSession.read``.
        sampler: may have drawn some tokens more if the iteration is ended early.
        drafter: None decodes plainly; so does any where the session does not verify drafts.
        max_tokens: None for as many as fit in the context.
        stats: filled in as it goes; complete when the iteration ends, however it ends.

    Raises:
        BadInput: the prompt is empty: the session may hold no logits to draw from; or the model
            computes no numbers.
        ContextFull: the prompt does not fit.
    """
    if not prompt:
        raise BadInput("the prompt is empty; give at least one token")
    stats = stats if stats is not None else Stats()
    clock = Clock(stats)
    if drafter is not None and not session.verifies_drafts:
        drafter = None
    session.read(prompt[kept:], before_batch=before_batch)
    sampler.read(prompt)
    stats.prompt_tokens, stats.cached_tokens = len(prompt), kept
    clock.charge("prompt_seconds")
    if drafter is not None:
        drafter.begin(session, prompt)
        clock.charge("begin_seconds")
    limit = max_tokens if max_tokens is not None else session.n_ctx
    started = time.perf_counter()
    try:
        yield from _decode(Writing(session, sampler, limit, stats, clock), drafter)
    finally:
        stats.seconds = time.perf_counter() - started
        if drafter is not None:
            stats.drafter = drafter.report()


def _decode(text: Writing, drafter: Drafter | None) -> Generator[int, None, None]:
    """THE loop. The session's last step holds the logits for the first token."""
    session, stats, clock = text.session, text.stats, text.clock
    if text.limit <= 0:
        stats.finish_reason = "length"
        return
    clock.resume()
    if np.isnan(session.logits(-1)).any():
        raise BadInput(
            f"{session.model.path} computes no numbers (its logits are NaN) and may be damaged:"
            " fetch it again or use another"
        )
    text.pending = [text.sampler.sample(session, -1)]
    clock.charge("sample_seconds")
    polling = drafter if isinstance(drafter, PollingDrafter) else None
    try:
        while True:
            stats.add_token(FULL_MODEL)
            if finished := text.finish_reason:
                stats.finish_reason = finished
            yield text.pending[-1]
            if finished:
                return
            clock.resume()
            back_off = polling.back_off() if polling is not None else None
            if drafter is None:
                yield from decode_plainly(text, _NEVER_DRAFT, None)
            elif back_off is not None:
                yield from decode_plainly(text, back_off, polling)
            else:
                ended = yield from _draft_and_verify(text, drafter)
                if ended:
                    return
    finally:
        if len(text.pending) > 1:
            session.step(text.pending[:-1], outputs="none")


def _draft_and_verify(text: Writing, drafter: Drafter) -> Generator[int, None, bool]:
    """One round. Yields its tokens but for the full model's own, which is the last of ``pending``
    afterwards. Returns whether the text ended within the draft."""
    session, sampler, stats, clock = text.session, text.sampler, text.stats, text.clock
    most = text.max_drafted
    draft = drafter.draft(session, text.pending, most).first(most)
    draft_seconds = clock.charge("draft_seconds")
    path = AcceptedPath(session, text.pending, draft)
    try:
        session.verify(text.pending, draft)
        verify_seconds = clock.charge("verify_seconds")
        stats.add_draft(draft)
        while path.accepts(token := sampler.sample(session, path.output)):
            clock.charge("sample_seconds")
            stats.add_accepted(len(path.nodes) - 1)
            stats.add_token(draft.source(path.nodes[-1]))
            ended = session.model.ends_text(token)
            if ended:
                stats.finish_reason = "end"
            yield token
            if ended:
                return True
            clock.resume()
    finally:
        verified, text.pending = tuple(text.pending), path.settle()
    clock.charge("sample_seconds")
    nodes, generated = tuple(path.nodes), stats.tokens + 1
    round = Round(verified, draft, nodes, token, generated, draft_seconds, verify_seconds)
    stats.add_round(round)
    drafter.learn(session, round)
    clock.charge("search_seconds")
    return False
