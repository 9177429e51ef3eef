"""The CPU kernels that models are loaded for (``ecl_kernels.h``)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
from collections.abc import Iterator
from typing import Any, Literal

from edge_conflayers.engine.ggml import library
from edge_conflayers.errors import BadInput

KernelChoice = Literal["ecl", "upstream", "upstream-as-is"]
_KERNEL_CHOICES: dict[KernelChoice, int] = {"upstream": 0, "ecl": 1, "upstream-as-is": 2}


def _cpu_kernels() -> Any:
    """The library of ggml's CPU backend; None in upstream's own build, which knows nothing of
    ours."""
    cpu = library("ggml-cpu")
    return cpu if hasattr(cpu, "ecl_kernels_describe") else None


_cpu = _cpu_kernels()
if _cpu is not None:
    _cpu.ecl_kernels_describe.restype = ctypes.c_char_p


def default_kernels() -> KernelChoice:
    """What the environment variable ECL_KERNELS asks for; ours without it."""
    wanted = os.environ.get("ECL_KERNELS")
    return next((choice for choice in _KERNEL_CHOICES if choice == wanted), "ecl")


@contextlib.contextmanager
def loading_for(choice: KernelChoice) -> Iterator[None]:
    """Has the models that this thread loads use these CPU kernels for good.

    Raises:
        BadInput: there are none of that name.
    """
    if choice not in _KERNEL_CHOICES:
        raise BadInput(f"kernels are one of {', '.join(_KERNEL_CHOICES)}, not '{choice}'")
    if _cpu is None:
        yield
        return
    before = _cpu.ecl_kernels_chosen()
    _cpu.ecl_kernels_choose(_KERNEL_CHOICES[choice])
    try:
        yield
    finally:
        _cpu.ecl_kernels_choose(before)


@functools.lru_cache
def kernels(choice: KernelChoice | None = None) -> dict[str, Any]:
    """What a choice of kernels means on this CPU.

    Args:
        choice: None for ``default_kernels()``.

    Returns:
        ``{"enabled": bool, "exact": bool, "isa": name, "formats": {format: isa or "upstream"}}``.
        enabled: our kernels are used. exact: a token has the same bits alone and in a small batch.
        isa: the instruction set of our kernels, or "none". formats: what serves each weight format.
    """
    if _cpu is None:
        return {"enabled": False, "exact": False, "isa": "none", "formats": {}}
    described: dict[str, Any] = json.loads(
        _cpu.ecl_kernels_describe(_KERNEL_CHOICES[choice or default_kernels()])
    )
    return described
