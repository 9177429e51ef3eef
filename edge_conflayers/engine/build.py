"""Which build of the library is loaded: measurements with one do not hold for another."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import edge_conflayers
from edge_conflayers.engine import binding
from edge_conflayers.engine.binding import KernelChoice
from edge_conflayers.engine.native import llama

_SUFFIXES = (".so", ".dylib", ".dll")


@functools.lru_cache(maxsize=1)
def library_build() -> str:
    """This package's version and a digest of the library's files; some 10 ms, once a process."""
    digest = hashlib.blake2b(digest_size=8)  # twice as fast as SHA-256 here
    files = sorted(Path(llama._lib._name).parent.iterdir())
    for file in files:
        if any(suffix in file.suffixes for suffix in _SUFFIXES):
            digest.update(file.name.encode() + file.read_bytes())
    return f"{edge_conflayers.__version__} {digest.hexdigest()}"


def kernel_choice(choice: KernelChoice) -> str:
    """What a choice of CPU kernels means here, such as "ecl avx512vnni"."""
    return f"{choice} {binding.kernels(choice)['isa']}"
