"""Plain decoding on ONNX Runtime, with lookups that watch it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from edge_conflayers.engine import binding
from edge_conflayers.engine.session import TextSession
from edge_conflayers.engine.session.results import Stretch
from edge_conflayers.errors import EdgeConflayersError


def write(
    session: TextSession,
    pending: Sequence[int],
    samplers: binding.Samplers,
    most: int,
    seconds: float,
    watch: Sequence[Any],
    wake_at: float,
) -> Stretch:
    """Decodes plainly; see ``TextSession.write``.

    Args:
        most: most tokens to draw, as many as there is room for.
    """
    drawn: list[int] = []
    times: list[float] = []
    began = time.perf_counter()
    length, reading = len(session), list(pending)
    woken = False
    while len(drawn) < most and not woken:
        step_began = time.perf_counter()
        try:
            session.step(reading, outputs="last")
            taken = time.perf_counter() - step_began
            token = session.draw(-1, samplers)
        except EdgeConflayersError:
            session.rollback(length)
            if not drawn:
                raise
            break  # what was drawn before stands; the next call fails at its start
        drawn.append(token)
        times.append(taken)
        for lookup in watch:
            expected = binding.ecl_lookup_follow(lookup, token)
            woken = woken or expected >= wake_at or expected < 0  # it could not take the token in
        if session.model.ends_text(token) or time.perf_counter() - began >= seconds:
            break
        length, reading = len(session), [token]
    return Stretch(drawn, times, woken)
