"""The memory that a model takes here."""

from __future__ import annotations

from edge_conflayers import machine
from edge_conflayers.doctor.section import Section, size
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session.kv_cache import kv_cache_bytes

_CONTEXTS = (2048, 8192, 32768)
_USUAL = 4096  # tokens of a session, as ``kv_cache.context_for`` has it


def examine_memory(model: LanguageModel, weight_bytes: int) -> Section:
    """What weights and KV cache take, and whether they fit. Called while the model is loaded.

    Args:
        weight_bytes: of all tensors.
    """
    section = Section("memory")
    trained = model.n_ctx_train or _USUAL
    contexts = sorted({n for n in (*_CONTEXTS, trained, _USUAL) if n <= trained})
    caches = {n: kv_cache_bytes(model, n) for n in contexts}
    free = machine.available_memory()
    windowed = "sliding_window" in " ".join(model.metadata)
    section.data = {
        "weight_bytes": weight_bytes,
        "cache_bytes": {str(n): taken for n, taken in caches.items()},
        "sliding_window": windowed,
    }
    section.tell("weights", size(weight_bytes))
    most = "at most " if windowed else ""
    section.tell(
        "KV cache",
        ", ".join(f"{most}{size(taken)} for {n} tokens" for n, taken in caches.items()),
    )
    if free is not None:
        fits = [n for n, taken in caches.items() if taken <= free]
        section.data["largest_context_that_fits"] = max(fits, default=0)
        section.tell(
            "with it loaded",
            f"{size(free)} are free"
            + ("" if len(fits) == len(caches) else f": contexts of {max(fits, default=0)} fit"),
        )
        if not fits:
            section.problems.append(
                f"the KV cache of {contexts[0]} tokens does not fit in the {size(free)} that are"
                " free: close programs, or use a smaller model"
            )
    return section
