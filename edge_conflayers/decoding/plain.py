"""Rounds without a draft: several one-token steps in one call of the library."""

from __future__ import annotations

from collections.abc import Generator

from edge_conflayers.decoding.drafter import BackOff, PollingDrafter
from edge_conflayers.decoding.round import Round
from edge_conflayers.decoding.stats import FULL_MODEL
from edge_conflayers.decoding.writing import Writing
from edge_conflayers.engine.draft import NO_DRAFT

# After so long a call's tokens are handed out, too short to be seen. Between two steps Python took
# 60 us, 1 to 2 % of SmolLM2's step (2026-11-27); the length itself was not tuned.
_MAX_SECONDS = 0.02


def decode_plainly(
    text: Writing, back_off: BackOff, drafter: PollingDrafter | None
) -> Generator[int, None, None]:
    """Makes rounds without a draft. Yields their tokens but for the last, which is ``pending``
    afterwards.

    Args:
        drafter: hears of the rounds.
    """
    session, stats, clock, pending = text.session, text.stats, text.clock, text.pending
    begin, shown = len(session), 0
    rounds: list[Round] = []
    try:
        stretch = session.write(
            pending,
            text.sampler.native,
            most=min(back_off.rounds, text.limit - stats.tokens),
            seconds=_MAX_SECONDS,
            watch=back_off.watch,
            wake_at=back_off.wake_at,
        )
        clock.charge("sample_seconds")
        verify_seconds = sum(stretch.seconds)
        stats.sample_seconds -= verify_seconds
        stats.verify_seconds += verify_seconds
        read = tuple(pending)
        for token, seconds in zip(stretch.tokens, stretch.seconds, strict=True):
            generated = stats.tokens + len(rounds) + 1
            rounds.append(Round(read, NO_DRAFT, (), token, generated, 0.0, seconds))
            read = (token,)
        if drafter is not None:
            drafter.skipped(session, rounds, stretch.woken)
            clock.charge("search_seconds")
        for round in rounds:
            stats.rounds += 1
            stats.add_round(round)
            shown += 1
            if shown < len(rounds):
                stats.add_token(FULL_MODEL)
                yield round.token
                clock.resume()
    finally:
        # An interrupt may leave more in the cache than was handed out.
        if len(session) > begin:
            session.rewind(begin + len(pending) - 1 + shown)
            pending[:] = [rounds[shown - 1].token if shown else pending[-1]]
