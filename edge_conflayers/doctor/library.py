"""The library that computes: which build it is, and what it can compute on."""

from __future__ import annotations

import re

from edge_conflayers import __version__
from edge_conflayers.bench.about import upstream_version
from edge_conflayers.doctor.section import Section
from edge_conflayers.engine import binding
from edge_conflayers.engine.build import library_build
from edge_conflayers.engine.ggml import devices
from edge_conflayers.engine.native import LIBRARY, llama


def examine_library() -> Section:
    """The loaded library.

    Raises:
        EdgeConflayersError: on import of this module: it is not built, or does not load.
    """
    section = Section("library")
    kernels = binding.kernels("ecl")
    ours = [name for name, kernel in kernels["formats"].items() if kernel != "upstream"]
    found = devices()
    compiled = compiled_features()
    section.data = {
        "version": __version__,
        "upstream_version": upstream_version(),
        "build": library_build().split()[-1],
        "path": str(LIBRARY._name),
        "patched": binding.PATCHED,
        "devices": [device._asdict() for device in found],
        "kernels": kernels,
        "compiled_for": compiled,
    }
    patched = "patched" if binding.PATCHED else "as it is"
    section.tell("version", f"edge-conflayers {__version__}")
    section.tell("llama.cpp", f"of {upstream_version()}, {patched}, build {section.data['build']}")
    section.tell("loaded from", str(LIBRARY._name))
    section.tell("computes on", "; ".join(f"{each.name} ({each.description})" for each in found))
    if ours:
        section.tell("kernels", f"ours ({kernels['isa']}) for {', '.join(ours)}; upstream's else")
    else:
        section.tell("kernels", "upstream's for everything: ours need AVX2, NEON or more")
    if compiled:
        section.tell("compiled for", ", ".join(compiled))
    if not binding.PATCHED:
        section.problems.append(
            "the library is llama.cpp as it is, without our hook: unset EDGE_CONFLAYERS_LIB, or"
            " install the package anew"
        )
    return section


def compiled_features() -> list[str]:
    """The CPU features that llama.cpp was compiled for, as it names them."""
    text = llama.llama_print_system_info().decode("utf-8", errors="replace")
    return re.findall(r"(\w+) = 1", text)
