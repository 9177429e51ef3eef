"""The CPU's instruction sets that matter for matrix products, as the system names them."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

# Of /proc/cpuinfo's flags (x86) and features (Arm).
_LINUX = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
_DARWIN = ("FEAT_FP16", "FEAT_DotProd", "FEAT_I8MM", "FEAT_BF16", "FEAT_SME")


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """The instruction sets of this CPU, in a fixed order; empty where the system does not say.

    Args:
        cpuinfo: Linux's file of processors.
    """
    if platform.system() == "Darwin":
        return tuple(name for name in _DARWIN if _sysctl(f"hw.optional.arm.{name}") == "1")
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            has = set(value.split())
            return tuple(each for each in _LINUX if each in has)
    return ()


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
