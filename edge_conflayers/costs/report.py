"""What ``edge-conflayers cost`` shows: T1, V(n), c(S) on a ladder of skip sets, and the speed of
memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from statistics import median
from typing import Any

import msgspec

from edge_conflayers.costs.bytes_read import bytes_read_by
from edge_conflayers.costs.timer import PLAIN, Step, StepTimer
from edge_conflayers.engine.session import NO_MASK, LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.machine.memory_speed import MemoryReading

LARGEST_STEP = 16
"""Tokens of the largest step that is measured."""

ROOM = LARGEST_STEP + 2
"""Tokens that the session needs beyond the context that is measured at."""

_TEXT = (
    "The lighthouse keeper counted 47 ships that autumn, wrote each name in a ledger, and sorted"
    " the pages by tonnage, by harbour and by the hour at which the fog had let them through. "
)
_T1_EVERY = 6  # kinds of steps; T1 is in every ratio, so it is timed more often. Not tuned
_SWITCHES = 4  # between two graphs in each repeat; not tuned


class SkipCost(msgspec.Struct, frozen=True):
    """c(S) of a skip set of whole layers (0-based).

    Attributes:
        weight_bytes: that such a step reads; None where that is not known.
    """

    skip_set: tuple[int, ...]
    c: float
    weight_bytes: float | None = None


class GraphSwitch(msgspec.Struct, frozen=True):
    """Cost of going from a masked one-token step to a full step over four tokens or back.

    Attributes:
        graphs_built: graphs built per switch; 0 when both stay alive.
        build_ms: milliseconds of building graphs per switch, as the library counts them.
        wall_ms: by how much a step right after a switch is slower than the same step again; noise
            can make it negative.
    """

    graphs_built: float
    build_ms: float
    wall_ms: float


class CostReport(msgspec.Struct, frozen=True):
    """Measured costs of one model at one context length on this machine.

    Attributes:
        t1_ms: T1 in milliseconds.
        v: V(n) for n from 2 to 16.
        c: a ladder of skip sets, from none to every layer but the first and last; empty if the
            model's layers cannot be dropped.
        context: tokens in the cache before each step.
        threads: CPU threads.
        graph_switch: what changing between two kinds of step costs.
        memory_gb_per_s: memory read by all threads in the same run, 10^9 bytes per second; None if
            memory was too short to measure it.
        weight_bytes: that a full one-token step reads; None where that is not known.
    """

    t1_ms: float
    v: dict[int, float]
    c: tuple[SkipCost, ...]
    context: int
    threads: int
    graph_switch: GraphSwitch
    memory_gb_per_s: float | None = None
    weight_bytes: float | None = None

    @property
    def floor_ms(self) -> float | None:
        """Milliseconds that reading the weights alone takes; None where that is not known."""
        if self.weight_bytes is None or self.memory_gb_per_s is None:
            return None
        return self.weight_bytes / self.memory_gb_per_s / 1e6

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        content: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return content


def ladder(n_layer: int) -> list[tuple[int, ...]]:
    """Skip sets of 0, 10, ... 100 % of layers 1 .. n_layer - 2, each spread evenly, each once."""
    candidates = n_layer - 2
    if candidates < 1:
        return [()]
    sizes = sorted({round(candidates * tenth / 10) for tenth in range(11)})
    # The middles of equal stretches.
    return [
        tuple(1 + (2 * i + 1) * candidates // (2 * size) for i in range(size)) for size in sizes
    ]


def measure(
    session: TextSession,
    *,
    context: int = 128,
    repeat: int = 7,
    on_progress: Callable[[int, int], None] | None = None,
) -> CostReport:
    """Measures the costs of steps and the speed of memory; clears the session.

    Times are medians over the repeats, taken as ``StepTimer.median_seconds`` says. Memory is read
    once a repeat, as ``MemoryReading`` says.

    Args:
        session: with room for ``context + ROOM`` tokens.
        context: tokens in the cache before each step.
        repeat: how often everything is measured.
        on_progress: called with repeats done and repeats in all.

    Raises:
        BadInput: context or repeat below 1.
        ContextFull: the session has no room.
    """
    if context < 1 or repeat < 1:
        raise BadInput("context and repeat must be at least 1; give larger numbers")
    text = session.model.repeated(_TEXT, context + LARGEST_STEP)
    session.clear()
    session.read(text[:context])
    timer = StepTimer(session, text)
    skip_sets = ladder(session.model.n_layer)
    if not timer.serves(LayerMask.layers(skip_sets[-1])):
        skip_sets = []
    reading = MemoryReading(session.threads)
    done = 0

    def on_repeat() -> None:
        nonlocal done
        done += 1
        reading.read()
        if on_progress is not None:
            on_progress(done, repeat)

    kinds = [Step(n) for n in range(2, LARGEST_STEP + 1)]
    kinds += [Step(mask=LayerMask.layers(skip_set)) for skip_set in skip_sets]
    order = [
        step
        for i, kind in enumerate(kinds)
        for step in ((PLAIN, kind) if i % _T1_EVERY == 0 else (kind,))
    ]
    seconds = timer.median_seconds(order, repeats=repeat, on_repeat=on_repeat)
    t1 = seconds[PLAIN]
    middle = skip_sets[len(skip_sets) // 2] if skip_sets else ()
    masked = Step(mask=LayerMask.layers(middle))
    graph_switch = _switch(session, timer, masked, Step(4), _SWITCHES * repeat)
    session.set_mask(NO_MASK)
    session.clear()
    read = None if session.model.on_gpu else bytes_read_by(session.model)
    return CostReport(
        t1_ms=t1 * 1e3,
        v={n: seconds[Step(n)] / t1 for n in range(2, LARGEST_STEP + 1)},
        c=tuple(
            SkipCost(
                skip_set,
                seconds[Step(mask=LayerMask.layers(skip_set))] / t1,
                None if read is None else read.under(LayerMask.layers(skip_set)),
            )
            for skip_set in skip_sets
        ),
        context=context,
        threads=session.threads,
        graph_switch=graph_switch,
        memory_gb_per_s=reading.median,
        weight_bytes=None if read is None else read.under(),
    )


def _switch(
    session: TextSession, timer: StepTimer, one: Step, other: Step, switches: int
) -> GraphSwitch:
    """Alternates between two kinds of step, each run twice; the first is right after a switch."""
    for step in (one, other):
        timer.seconds(step)
    before = session.graph_stats()
    after_switch: dict[Step, list[float]] = {one: [], other: []}
    again: dict[Step, list[float]] = {one: [], other: []}
    for step in islice(cycle((one, other)), switches):
        after_switch[step].append(timer.seconds(step))
        again[step].append(timer.seconds(step))
    after = session.graph_stats()
    slower = [median(after_switch[step]) - median(again[step]) for step in (one, other)]
    return GraphSwitch(
        graphs_built=(after.built - before.built) / switches,
        build_ms=(after.build_seconds - before.build_seconds) * 1e3 / switches,
        wall_ms=sum(slower) / len(slower) * 1e3,
    )


def rows(report: CostReport) -> Iterator[tuple[str, str, str]]:
    """The costs as (what, over T1, milliseconds), for a table."""
    yield "T1", "1.00", f"{report.t1_ms:.2f}"
    for n, ratio in report.v.items():
        yield f"V({n})", f"{ratio:.2f}", f"{ratio * report.t1_ms:.2f}"
    for cost in report.c:
        what = f"c({len(cost.skip_set)} layers dropped)"
        yield what, f"{cost.c:.2f}", f"{cost.c * report.t1_ms:.2f}"
