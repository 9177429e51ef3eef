"""How fast this machine reads memory, which is what bounds decoding on a CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np

from edge_conflayers import machine

_READ_BYTES = 512 << 20  # many times any CPU's cache
_LEAST_READ_BYTES = 128 << 20  # still more than the last-level caches of most CPUs


class MemoryReading:
    """Measures the speed at which all threads together read memory that no cache holds.

    512 MiB of int64, or a quarter of the free memory where that is less, are shared out among the
    threads, and numpy takes the greatest of each one's part: of its reductions the fastest, by 5 %
    over the sum; C's memchr reads a tenth faster still (Xeon, two threads, 2026-11-28).

    Args:
        threads: that read at once.

    Attributes:
        threads: as given.
        n_bytes: read in a pass; 0 where there is too little memory to measure.
        rates: of each pass, in 10^9 bytes per second.
    """

    def __init__(self, threads: int) -> None:
        free = machine.available_memory()
        size = _READ_BYTES if free is None else min(_READ_BYTES, free // 4)
        self.threads = threads
        self.rates: list[float] = []
        self._parts: Sequence[Any] = []
        if size >= _LEAST_READ_BYTES:
            self._parts = np.array_split(np.ones(size // 8, dtype=np.int64), threads)
        self.n_bytes = sum(part.nbytes for part in self._parts)

    def read(self) -> None:
        """Makes one pass, if there is memory enough."""
        if not self._parts:
            return
        with ThreadPoolExecutor(len(self._parts)) as pool:
            started = time.perf_counter()
            list(pool.map(np.maximum.reduce, self._parts))  # numpy releases the GIL
            spent = time.perf_counter() - started
        self.rates.append(self.n_bytes / spent / 1e9)

    def read_for(self, seconds: float) -> None:
        """Makes passes until so much time has gone by, at least one."""
        begun = time.perf_counter()
        self.read()
        while self._parts and time.perf_counter() - begun < seconds:
            self.read()

    @property
    def median(self) -> float | None:
        """10^9 bytes per second; None if nothing was read."""
        return median(self.rates) if self.rates else None

    @property
    def fastest(self) -> float | None:
        """The fastest pass, which other programs have disturbed least; None if nothing was read."""
        return max(self.rates, default=None)
