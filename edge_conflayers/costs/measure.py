"""Measures what a model's steps cost: quickly before the first text, fully for ``tune``.

The cache is read in strides of 256 tokens, so costs are measured just before the end of a stride,
in which the measured steps then stay, near the start of a text and at about a thousand tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.costs.timer import PLAIN, Step, StepTimer
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput

CONTEXTS = (240, 1008)
"""Tokens in the cache where costs are measured."""

SESSION_SIZE = 1024
"""Tokens of a session that is long enough to measure all costs in."""

# Sizes of verification. With three kinds of one-token steps they are no more than LIVE_GRAPHS.
_QUICK_SIZES = (2, 4, 8, 16)
_FULL_SIZES = (2, 3, 4, 8, 16)

QUICK_BUDGET = 90.0
"""Most one-token steps' time that a quick measurement takes, about. Not tuned."""

_QUICK_REPEATS = 3  # not tuned
_FULL_REPEATS = 7  # not tuned
_LEAST_APART = 64  # tokens between two contexts, to tell how costs grow; not tuned
_TEXT = "The lighthouse keeper counted 47 ships that autumn, and wrote each name in a ledger. "


def session_to_measure_in(model: LanguageModel, threads: int | None) -> TextSession:
    """A session that is long enough, as the user's may be short; to be closed."""
    n_ctx = min(SESSION_SIZE, model.longest or SESSION_SIZE)
    return model.open_session(n_ctx=n_ctx, threads=threads)


def measure_costs(
    session: TextSession,
    *,
    quick: bool = True,
    contexts: Sequence[int] = CONTEXTS,
    on_progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> StepCosts:
    """Measures the costs of a model's steps; clears the session.

    A sub-layer's cost is the time by which a one-token step is shorter with all inner layers'
    sub-layers of that kind dropped, over their number. The cache is filled with the inner layers
    dropped, which is cheap; what is in it does not change the time of a step.

    Args:
        quick: V of 2, 4, 8 and 16 tokens in at most three repeats and about 90 one-token steps'
            time; else V of 3 as well, in seven repeats.
        contexts: tokens in the cache before each step, two, ascending; reduced to what fits.
        on_progress: called with contexts done and contexts in all.
        clock: in seconds.

    Raises:
        BadInput: the session is too short, or keeps the logits of one token only.
        EdgeConflayersError: the model cannot be rolled back.
    """
    sizes = [n for n in (_QUICK_SIZES if quick else _FULL_SIZES) if n <= session.max_outputs]
    largest = max(sizes, default=1)
    if not sizes or session.n_ctx < 2 * largest:
        raise BadInput(
            f"a context of {session.n_ctx} tokens is too small to measure in; give more (-c)"
        )
    places = _that_fit(contexts, session.n_ctx - largest)
    text = session.model.repeated(_TEXT, places[-1] + largest)
    inner = range(1, session.model.n_layer - 1)
    session.clear()
    timer = StepTimer(session, text, clock)
    session.set_mask(NO_MASK)
    maskable = timer.serves(LayerMask.layers(inner)) and bool(inner)
    at = []
    try:
        for done, place in enumerate(places):
            session.set_mask(LayerMask.layers(inner) if maskable else NO_MASK)
            session.read(text[len(session) : place])
            budget = QUICK_BUDGET / len(places) if quick else None
            at.append(_measure_here(timer, place, sizes, inner if maskable else (), budget))
            if on_progress is not None:
                on_progress(done + 1, len(places))
    finally:
        session.set_mask(NO_MASK)
        session.clear()
    return StepCosts(tuple(at), maskable)


def _that_fit(contexts: Sequence[int], room: int) -> list[int]:
    """The contexts, cut to the room there is; only the last if they are too near each other."""
    first, last = (min(context, room) for context in (contexts[0], contexts[-1]))
    return [first, last] if last - first >= _LEAST_APART else [last]


def _measure_here(
    timer: StepTimer,
    context: int,
    sizes: Sequence[int],
    inner: Sequence[int],
    budget: float | None,
) -> Measurement:
    """Costs of steps that follow what the session holds.

    Args:
        inner: the layers whose sub-layers are measured; empty if the model cannot drop them.
        budget: as for ``StepTimer.median_seconds``; None for a full measurement.
    """
    no_attention = Step(mask=LayerMask(attention=frozenset(inner)))
    no_mlp = Step(mask=LayerMask(mlp=frozenset(inner)))
    seconds = timer.median_seconds(
        [PLAIN, *(Step(n) for n in sizes), *((no_attention, no_mlp) if inner else ())],
        repeats=_FULL_REPEATS if budget is None else _QUICK_REPEATS,
        budget=budget,
    )
    t1 = seconds[PLAIN]

    def each(without: Step) -> float:
        return max(0.0, t1 - seconds[without]) / len(inner) if inner else 0.0

    return Measurement(
        context=context,
        t1=t1,
        attention=each(no_attention),
        mlp=each(no_mlp),
        v={n: seconds[Step(n)] / t1 for n in sizes},
    )
