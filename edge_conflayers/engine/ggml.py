"""What ggml says of its tensor types and of the devices that it computes on.

Raises on import:
    EdgeConflayersError: as ``native``.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, NamedTuple

from edge_conflayers.engine.native import LIBRARY, llama

_KINDS = ("CPU", "GPU", "integrated GPU", "accelerator")  # ggml_backend_dev_type


class Device(NamedTuple):
    """What steps can be computed on.

    Attributes:
        name: such as "CPU" or "CUDA0".
        description: the hardware's name.
        kind: CPU, GPU, integrated GPU or accelerator (a library such as BLAS).
        memory_bytes: its memory in all; 0 where it does not say.
    """

    name: str
    description: str
    kind: str
    memory_bytes: int


class TensorType(NamedTuple):
    """A type of tensors.

    Attributes:
        name: such as "Q4_K".
        block: values that are kept together; a row is a multiple of it.
        block_bytes: of such a block.
    """

    name: str
    block: int
    block_bytes: int

    @property
    def bits(self) -> float:
        """Of a value."""
        return 8 * self.block_bytes / self.block


def library(name: str) -> Any:
    """One of ggml's libraries, which libllama has loaded already, for ctypes; None where it is no
    file of its own.

    Args:
        name: such as "ggml-cpu"; in a build of ours, the file's begins with "ecl-".
    """
    for suffix in (".so", ".dylib", ".dll"):
        for prefix in ("libecl-", "ecl-", "lib", ""):
            path = Path(LIBRARY._name).parent / f"{prefix}{name}{suffix}"
            if path.exists():
                return ctypes.CDLL(str(path))
    return None


@functools.lru_cache(maxsize=1)
def tensor_types() -> dict[int, TensorType]:
    """The types of tensors by their number in a file."""
    base = library("ggml-base")
    base.ggml_type_name.restype = ctypes.c_char_p
    base.ggml_blck_size.restype = ctypes.c_int64
    base.ggml_type_size.restype = ctypes.c_size_t
    found: dict[int, TensorType] = {}
    for number in range(llama.GGML_TYPE_COUNT):
        block, size = base.ggml_blck_size(number), base.ggml_type_size(number)
        if block and size:  # numbers of types that are gone have neither
            name = base.ggml_type_name(number).decode().upper()
            found[number] = TensorType(name, block, size)
    return found


def devices() -> list[Device]:
    """What this build can compute on here."""
    ggml, base = library("ggml"), library("ggml-base")
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = (ctypes.c_size_t,)
    for ask in (base.ggml_backend_dev_name, base.ggml_backend_dev_description):
        ask.restype, ask.argtypes = ctypes.c_char_p, (ctypes.c_void_p,)
    base.ggml_backend_dev_type.argtypes = (ctypes.c_void_p,)
    sizes = ctypes.POINTER(ctypes.c_size_t)
    base.ggml_backend_dev_memory.restype = None
    base.ggml_backend_dev_memory.argtypes = (ctypes.c_void_p, sizes, sizes)
    found = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        kind = base.ggml_backend_dev_type(device)
        found.append(
            Device(
                base.ggml_backend_dev_name(device).decode(errors="replace"),
                base.ggml_backend_dev_description(device).decode(errors="replace"),
                _KINDS[kind] if kind < len(_KINDS) else "other",
                total.value,
            )
        )
    return found
