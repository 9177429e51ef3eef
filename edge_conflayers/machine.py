"""What this machine has: cores to compute on and memory to compute in."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def default_threads() -> int:
    """Physical cores that this process may use (performance cores on Apple Silicon): two threads of
    one core only wait for each other in matrix kernels."""
    if platform.system() == "Darwin":
        for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
            asked = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True)
            if asked.returncode == 0 and asked.stdout.strip().isdigit():
                return int(asked.stdout)
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = set()
        for cpu in allowed:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings")
            try:
                cores.add(siblings.read_text())
            except OSError:
                return len(allowed)
        return len(cores)
    return os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, or None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
