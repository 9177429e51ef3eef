"""What a step costs on this machine: T1, V(n), c(S) of ``ALGORITHMS.md``'s time model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np

from edge_conflayers import machine
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput

MOST_TOKENS = 16
ROOM = MOST_TOKENS + 2
"""Tokens that the session needs beyond the context that is measured at."""

_TEXT = (
    "The lighthouse keeper counted 47 ships that autumn, wrote each name in a ledger, and sorted"
    " the pages by tonnage, by harbour and by the hour at which the fog had let them through. "
)
_READ_BYTES = 512 << 20
_LEAST_READ_BYTES = 128 << 20
_T1_EVERY = 6
_SWITCHES = 4


@dataclass(frozen=True)
class SkipCost:
    """c(S) of one skip set of whole layers (0-based): a one-token step without them, over T1."""

    skip_set: tuple[int, ...]
    c: float


@dataclass(frozen=True)
class GraphSwitch:
    """What it costs to go from a masked one-token step to a full step over four tokens or back.

    Attributes:
        graphs_built: per switch; 0 when both graphs stay alive.
        build_ms: of building them, per switch, as the library counts it.
        wall_ms: by how much a step right after a switch is slower than the same step again; noise
            can make it negative.
    """

    graphs_built: float
    build_ms: float
    wall_ms: float


@dataclass(frozen=True)
class Costs:
    """Measured costs of one model at one context length on this machine.

    Attributes:
        t1_ms: a full one-token step with its logits, in milliseconds.
        v: V(n), a full step over n tokens with logits for every one, over T1; n from 2 to 16.
        c: a ladder of skip sets, from none to every layer but the first and last; empty if the
            model's layers cannot be dropped.
        context: tokens in the cache before each step.
        threads: CPU threads.
        memory_gb_per_s: memory read by all threads in the same run, 10^9 bytes per second; None
            where memory was too short to measure it.
    """

    t1_ms: float
    v: Mapping[int, float]
    c: tuple[SkipCost, ...]
    context: int
    threads: int
    graph_switch: GraphSwitch
    memory_gb_per_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able; ``from_json`` restores it exactly."""
        return {
            "t1_ms": self.t1_ms,
            "v": {str(n): ratio for n, ratio in self.v.items()},
            "c": [{"skip_set": list(cost.skip_set), "c": cost.c} for cost in self.c],
            "context": self.context,
            "threads": self.threads,
            "graph_switch": {
                "graphs_built": self.graph_switch.graphs_built,
                "build_ms": self.graph_switch.build_ms,
                "wall_ms": self.graph_switch.wall_ms,
            },
            "memory_gb_per_s": self.memory_gb_per_s,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Costs:
        """What ``to_json`` gave; other keys are ignored.

        Raises:
            BadInput: something is missing or not a number.
        """
        try:
            switch = data["graph_switch"]
            memory = data["memory_gb_per_s"]
            return cls(
                t1_ms=float(data["t1_ms"]),
                v={int(n): float(ratio) for n, ratio in data["v"].items()},
                c=tuple(
                    SkipCost(tuple(int(layer) for layer in cost["skip_set"]), float(cost["c"]))
                    for cost in data["c"]
                ),
                context=int(data["context"]),
                threads=int(data["threads"]),
                graph_switch=GraphSwitch(
                    float(switch["graphs_built"]),
                    float(switch["build_ms"]),
                    float(switch["wall_ms"]),
                ),
                memory_gb_per_s=None if memory is None else float(memory),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadInput(f"these costs cannot be used ({why}); measure them again") from error


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
    session: Session,
    *,
    context: int = 128,
    repeat: int = 7,
    on_progress: Callable[[int, int], None] | None = None,
) -> Costs:
    """Measures by the clock; clears the session.

    Every repeat visits every case once, so that a slow minute hits all of them; a case's time is
    its median over the repeats. A visit runs the step twice and times the second, whose graph is
    alive.

    Memory is read as 512 MiB of int64 in equal parts, each summed by numpy in a thread of its own.

    Args:
        session: with room for ``context + ROOM`` tokens.
        context: tokens in the cache before each step.
        on_progress: called with repeats done and repeats in all.

    Raises:
        BadInput: context or repeat below 1.
        ContextFull: the session has no room.
    """
    if context < 1 or repeat < 1:
        raise BadInput("context and repeat must be at least 1; give larger numbers")
    text = session.model.repeated(_TEXT, context + MOST_TOKENS)
    session.clear()
    session.read(text[:context])
    steps = _Steps(session, text[context:])

    skip_sets = _usable(steps, ladder(session.model.n_layer))
    cases = [_Case(n) for n in range(2, MOST_TOKENS + 1)]
    cases += [_Case(1, skip_set) for skip_set in skip_sets]
    full = _Case(1)
    times: dict[_Case, list[float]] = {case: [] for case in cases}
    t1: list[float] = []
    reading = _MemoryReading(session.threads)
    for turn in range(repeat):
        first = turn % len(cases)
        for i, case in enumerate([*cases[first:], *cases[:first]]):
            # T1 is in every ratio, so it is measured several times as often.
            if i % _T1_EVERY == 0:
                t1.append(steps.visit(full))
            times[case].append(steps.visit(case))
        reading.read()
        if on_progress is not None:
            on_progress(turn + 1, repeat)
    one = median(t1)
    middle = skip_sets[len(skip_sets) // 2] if skip_sets else ()
    switch = steps.switch(_Case(1, middle), _Case(4), _SWITCHES * repeat)
    session.set_mask(NO_MASK)
    session.clear()
    return Costs(
        t1_ms=one * 1e3,
        v={case.tokens: median(times[case]) / one for case in cases if case.skip_set is None},
        c=tuple(
            SkipCost(case.skip_set, median(times[case]) / one)
            for case in cases
            if case.skip_set is not None
        ),
        context=context,
        threads=session.threads,
        graph_switch=switch,
        memory_gb_per_s=reading.median,
    )


@dataclass(frozen=True)
class _Case:
    """One kind of step: tokens, and the layers it drops (None: it is no case of the ladder)."""

    tokens: int
    skip_set: tuple[int, ...] | None = None


class _Steps:
    """Runs steps at one place in a text, and takes them back."""

    def __init__(self, session: Session, tokens: Sequence[int]) -> None:
        self._session = session
        self._tokens = list(tokens)
        self._begin = len(session)

    def seconds(self, case: _Case) -> float:
        """Wall time of one step."""
        session = self._session
        session.set_mask(LayerMask.layers(case.skip_set or ()))
        started = time.perf_counter()
        session.step(self._tokens[: case.tokens], outputs="all")
        session.logits(-1)  # waits for a GPU
        ended = time.perf_counter()
        session.rollback(self._begin)
        return ended - started

    def visit(self, case: _Case) -> float:
        self.seconds(case)
        return self.seconds(case)

    def switch(self, one: _Case, other: _Case, switches: int) -> GraphSwitch:
        """Alternates between two cases, each run twice: the first step is after a switch."""
        self.visit(one)
        self.visit(other)
        before = self._session.graph_stats()
        after_switch: dict[_Case, list[float]] = {one: [], other: []}
        again: dict[_Case, list[float]] = {one: [], other: []}
        for case in islice(cycle((one, other)), switches):
            after_switch[case].append(self.seconds(case))
            again[case].append(self.seconds(case))
        after = self._session.graph_stats()
        slower = [median(after_switch[case]) - median(again[case]) for case in (one, other)]
        return GraphSwitch(
            graphs_built=(after.built - before.built) / switches,
            build_ms=(after.build_seconds - before.build_seconds) * 1e3 / switches,
            wall_ms=sum(slower) / len(slower) * 1e3,
        )


def _usable(steps: _Steps, skip_sets: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The skip sets, or none of them where the architecture cannot be served by a mask."""
    try:
        steps.seconds(_Case(1, skip_sets[-1]))
    except BadInput:
        return []
    return list(skip_sets)


class _MemoryReading:
    """How fast all threads together read memory that no cache holds."""

    def __init__(self, threads: int) -> None:
        free = machine.available_memory()
        size = _READ_BYTES if free is None else min(_READ_BYTES, free // 4)
        self._parts: list[Any] = []
        self._rates: list[float] = []
        if size >= _LEAST_READ_BYTES:
            self._parts = np.array_split(np.ones(size // 8, dtype=np.int64), threads)

    def read(self) -> None:
        if not self._parts:
            return
        with ThreadPoolExecutor(len(self._parts)) as pool:
            started = time.perf_counter()
            list(pool.map(np.add.reduce, self._parts))  # numpy lets go of the interpreter meanwhile
            spent = time.perf_counter() - started
        self._rates.append(sum(part.nbytes for part in self._parts) / spent / 1e9)

    @property
    def median(self) -> float | None:
        return median(self._rates) if self._rates else None


def rows(costs: Costs) -> Iterator[tuple[str, str, str]]:
    """The costs as (what, over T1, milliseconds), for a table."""
    yield "T1", "1.00", f"{costs.t1_ms:.2f}"
    for n, ratio in costs.v.items():
        yield f"V({n})", f"{ratio:.2f}", f"{ratio * costs.t1_ms:.2f}"
    for cost in costs.c:
        what = f"c({len(cost.skip_set)} layers dropped)"
        yield what, f"{cost.c:.2f}", f"{cost.c * costs.t1_ms:.2f}"
