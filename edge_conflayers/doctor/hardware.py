"""The machine: CPU, memory, and how fast memory is read."""

from __future__ import annotations

import os
import platform

from edge_conflayers import machine, profiles
from edge_conflayers.doctor.section import Section, size
from edge_conflayers.machine.cpu_features import cpu_features
from edge_conflayers.machine.memory_speed import MemoryReading

_BUSY = 0.5  # programs, from which on they disturb measurements; not tuned


def load() -> float | None:
    """Programs that ran or waited for a CPU, on average over the last minute; None where the system
    does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def examine_machine(threads: int, reading: MemoryReading, busy: float | None) -> Section:
    """This machine.

    Args:
        threads: that steps take.
        reading: has measured the memory.
        busy: the ``load`` before anything was measured.
    """
    section = Section("machine")
    features, free = cpu_features(), machine.available_memory()
    total = machine.total_memory()
    section.data = {
        "cpu": profiles.cpu_name(),
        "features": list(features),
        "cores": machine.default_threads(),
        "logical_cpus": os.cpu_count(),
        "threads": threads,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": busy,
        "memory_bytes": total,
        "free_memory_bytes": free,
        "memory_gb_per_s": reading.fastest,
        "memory_measured_with": {"bytes": reading.n_bytes, "passes": len(reading.rates)},
    }
    section.tell("CPU", profiles.cpu_name())
    section.tell("features", " ".join(features) or "this system does not tell")
    section.tell("threads", f"{threads} of {os.cpu_count()} hardware threads (-t changes it)")
    if busy is not None and busy > _BUSY:
        section.tell(
            "busy",
            f"on average {busy:.1f} programs ran or waited for a CPU in the last minute: what is"
            " measured here may be slower than the machine is",
        )
    section.tell("system", f"{section.data['os']}, Python {platform.python_version()}")
    memory = "unknown" if total is None else size(total)
    section.tell("memory", memory + ("" if free is None else f", {size(free)} free"))
    if reading.fastest is None:
        section.tell("memory speed", "not measured: too little memory is free")
    else:
        section.tell(
            "memory speed",
            f"{reading.fastest:.1f} GB/s: the fastest of {len(reading.rates)} passes in which"
            f" {reading.threads} threads read {reading.n_bytes >> 20} MiB",
        )
    return section
