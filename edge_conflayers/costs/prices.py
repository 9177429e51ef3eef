"""What drafting under any mask and verifying any draft cost here, at any context length: a few
measured steps, interpolated. ``c(S)``, ``V(n)`` and T1 of ``ALGORITHMS.md``'s time model."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput

CONTEXTS = (240, 1008)
"""Where prices are measured. The cache is read in strides of 256 tokens; these end just within one,
so that the steps measured there stay in it."""

MEASURED_AT = 1024
"""Tokens that a session needs to measure them all."""

QUICK_TOKENS = (2, 4, 8, 16)
FULL_TOKENS = (2, 3, 4, 8, 16)
"""Together with three kinds of one-token steps as many as graphs stay alive (live_graphs)."""
QUICK_BUDGET = 90.0
"""One-token steps' time that a quick measurement may take, about."""

_LEAST_APART = 64  # two contexts nearer to each other say nothing about growth
_FULL_REPEAT = 7
_MOST_QUICK_REPEAT = 3
_SETTLING = 5  # one-token steps
_TEXT = "The lighthouse keeper counted 47 ships that autumn, and wrote each name in a ledger. "


@dataclass(frozen=True)
class PricesAt:
    """Prices at one context length.

    Attributes:
        context: tokens in the cache before each step.
        t1: seconds of a full one-token step with its logits.
        attention, mlp: seconds of one sub-layer of a one-token step, the inner layers' average.
        v: V(n), a full step over n tokens with logits for every one, over ``t1``, by n from 2 on.
    """

    context: int
    t1: float
    attention: float
    mlp: float
    v: Mapping[int, float]


@dataclass(frozen=True)
class Prices:
    """Measured at one or two context lengths, in ascending order; a straight line between and
    beyond them.

    Attributes:
        maskable: whether the model can run with sub-layers dropped; if not, they cost nothing and
            dropping them saves nothing.
    """

    at: tuple[PricesAt, ...]
    maskable: bool = True

    def t1(self, context: int) -> float:
        """Seconds of a full one-token step."""
        return self._line(context, [p.t1 for p in self.at])

    def c(self, mask: LayerMask, context: int, *, saved_seconds: float = 0.0) -> float:
        """A one-token draft step under a mask, over T1.

        Args:
            saved_seconds: what a draft vocabulary saves (``vocabulary.measure_savings``).
        """
        attention = self._line(context, [p.attention for p in self.at])
        mlp = self._line(context, [p.mlp for p in self.at])
        t1 = self.t1(context)
        left = t1 - len(mask.attention) * attention - len(mask.mlp) * mlp - saved_seconds
        return max(left / t1, 0.0)

    def v(self, n: int, context: int) -> float:
        """A full step over ``n`` tokens, over T1; beyond the most that was measured, as the last
        two measured go on. Never less than V of fewer tokens that was measured."""
        sizes = set.intersection(*(set(p.v) for p in self.at))
        return _v({m: self._line(context, [p.v[m] for p in self.at]) for m in sizes}, n)

    def _line(self, context: int, values: Sequence[float]) -> float:
        """Between the contexts and beyond; never under half of the least measured."""
        if len(values) == 1:
            return values[0]
        first, last = self.at[0].context, self.at[-1].context
        slope = (values[-1] - values[0]) / (last - first)
        return max(values[0] + slope * (context - first), min(values) / 2)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; ``from_json`` restores it exactly."""
        return {
            "maskable": self.maskable,
            "at": [
                {
                    "context": p.context,
                    "t1": p.t1,
                    "attention": p.attention,
                    "mlp": p.mlp,
                    "v": {str(n): ratio for n, ratio in p.v.items()},
                }
                for p in self.at
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prices:
        """What ``to_json`` gave.

        Raises:
            BadInput: something is missing, not a number, or makes no sense.
        """
        try:
            at = tuple(
                PricesAt(
                    context=int(p["context"]),
                    t1=float(p["t1"]),
                    attention=float(p["attention"]),
                    mlp=float(p["mlp"]),
                    v={int(n): float(ratio) for n, ratio in p["v"].items()},
                )
                for p in data["at"]
            )
            maskable = bool(data["maskable"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadInput(f"these prices cannot be used ({why}); measure them again") from error
        contexts = [p.context for p in at]
        if (
            not 1 <= len(at) <= 2
            or contexts != sorted(set(contexts))
            or not all(0 < p.t1 < inf and p.v for p in at)
            or not all(0 <= seconds < inf for p in at for seconds in (p.attention, p.mlp))
            or len({tuple(sorted(p.v)) for p in at}) > 1
            or not all(n > 1 and 0 < ratio < inf for p in at for n, ratio in p.v.items())
        ):
            raise BadInput("these prices cannot be used (they make no sense); measure them again")
        return cls(at, maskable)


def _v(measured: Mapping[int, float], n: int) -> float:
    """Interpolated between V(1) = 1 and what was measured, and made ascending."""
    if n <= 1:
        return 1.0
    counts = [1, *sorted(measured)]
    ratios = [1.0]
    for count in counts[1:]:
        ratios.append(max(ratios[-1], measured[count]))
    upper = min(max(bisect_right(counts, n), 1), len(counts) - 1)
    (n0, n1), (v0, v1) = counts[upper - 1 : upper + 1], ratios[upper - 1 : upper + 1]
    return v0 + (v1 - v0) * (n - n0) / (n1 - n0)


def measure_prices(
    session: Session,
    *,
    quick: bool = True,
    contexts: Sequence[int] = CONTEXTS,
    on_progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Prices:
    """Measures by the clock; clears the session.

    At each context every repeat visits every case once, so that a slow minute hits all of them,
    each right after full one-token steps, and a case's time is its median over the repeats. What a
    sub-layer costs is what a one-token step is shorter by without those of all inner layers, over
    their number.

    The cache is filled under a mask that drops all inner layers: steps take the same time whatever
    is in it, and filling it then costs little.

    Args:
        quick: V of 2, 4, 8 and 16 tokens, and at most three repeats, fewer if they would take
            longer than 90 one-token steps; else V of 3 as well, and seven repeats.
        contexts: tokens in the cache before each step, two, ascending; only as far as the session
            has room.
        on_progress: called with contexts done and contexts in all.
        clock: seconds.

    Raises:
        BadInput: the session has hardly any room, or keeps the logits of one token only.
        EdgeConflayersError: the model cannot take steps back.
    """
    sizes = [n for n in (QUICK_TOKENS if quick else FULL_TOKENS) if n <= session.max_outputs]
    most = max(sizes, default=1)
    if not sizes or session.n_ctx < 2 * most:
        raise BadInput(
            f"a context of {session.n_ctx} tokens is too small to measure in; give more (-c)"
        )
    places = _places(contexts, session.n_ctx - most)
    text = session.model.repeated(_TEXT, places[-1] + most)
    session.clear()
    steps = _Steps(session, text, clock)
    maskable = steps.maskable()
    at = []
    try:
        for done, place in enumerate(places):
            steps.fill(place, maskable)
            at.append(steps.prices(sizes, maskable, QUICK_BUDGET / len(places) if quick else None))
            if on_progress is not None:
                on_progress(done + 1, len(places))
    finally:
        session.set_mask(NO_MASK)
        session.clear()
    return Prices(tuple(at), maskable)


def session_to_measure_in(model: Model, threads: int | None) -> Session:
    """One of its own, since the user's may be short; to be closed."""
    return Session(model, n_ctx=MEASURED_AT, threads=threads)


def _places(contexts: Sequence[int], room: int) -> list[int]:
    """Those contexts, as far as there is room; only the last if they are too near."""
    first, last = (min(context, room) for context in (contexts[0], contexts[-1]))
    return [first, last] if last - first >= _LEAST_APART else [last]


class _Steps:
    """Times steps at the end of what the session holds, and takes them back."""

    def __init__(self, session: Session, text: Sequence[int], clock: Callable[[], float]) -> None:
        self._session = session
        self._text = text
        self._clock = clock
        self._inner = range(1, session.model.n_layer - 1)

    def maskable(self) -> bool:
        """Whether the model has inner layers and can run without them."""
        self._session.set_mask(NO_MASK)
        try:
            self._seconds(1, LayerMask.layers(self._inner))
        except BadInput:
            return False
        return bool(self._inner)

    def fill(self, length: int, maskable: bool) -> None:
        self._session.set_mask(LayerMask.layers(self._inner) if maskable else NO_MASK)
        self._session.read(self._text[len(self._session) : length])

    def prices(self, sizes: Sequence[int], maskable: bool, budget: float | None) -> PricesAt:
        """At what the session holds now.

        Args:
            budget: one-token steps' time that this may take; at least one repeat is made.
        """
        full, no_attention, no_mlp = (
            (1, NO_MASK),
            (1, LayerMask(attention=frozenset(self._inner))),
            (1, LayerMask(mlp=frozenset(self._inner))),
        )
        cases = [full, *((n, NO_MASK) for n in sizes)]
        if maskable:
            cases += [no_attention, no_mlp]
        times: dict[tuple[int, LayerMask], list[float]] = {case: [] for case in cases}
        started = self._clock()
        for case in cases:
            self._seconds(*case)  # builds its graph
        for _ in range(_FULL_REPEAT if budget is None else _MOST_QUICK_REPEAT):
            begun = self._clock()
            for case in cases:
                # As in a text; and after a batch the next steps are slower for a while.
                for _ in range(_SETTLING if case is full else 1):
                    self._seconds(*full)
                times[case].append(self._seconds(*case))
            now = self._clock()
            if budget is not None and 2 * now - begun - started > budget * median(times[full]):
                break
        t1 = median(times[full])

        def share(without: tuple[int, LayerMask]) -> float:
            if not maskable:
                return 0.0
            return max(0.0, t1 - median(times[without])) / len(self._inner)

        return PricesAt(
            context=len(self._session),
            t1=t1,
            attention=share(no_attention),
            mlp=share(no_mlp),
            v={n: median(times[n, NO_MASK]) / t1 for n in sizes},
        )

    def _seconds(self, n: int, mask: LayerMask) -> float:
        session = self._session
        begin = len(session)
        session.set_mask(mask)
        started = self._clock()
        session.step(self._text[begin : begin + n], outputs="all")
        session.logits(-1)  # waits for a GPU
        ended = self._clock()
        session.rollback(begin)
        return ended - started
