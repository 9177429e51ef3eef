"""What the constructor of ``llama_cpp.Llama`` takes, and what of that means something here."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_conflayers.engine.model_options import KV_TYPES, Lora, ModelOptions
from edge_conflayers.llama.errors import BadValue

_log = logging.getLogger("edge_conflayers")

# Their defaults, and why nothing is done about other values.
WITHOUT_MEANING: dict[str, tuple[Any, str]] = {
    "split_mode": (1, "layers are split over GPUs as llama.cpp does by default"),
    "main_gpu": (0, "llama.cpp chooses the GPU"),
    "tensor_split": (None, "layers are split over GPUs as llama.cpp does by default"),
    "use_mmap": (True, "the file is mapped"),
    "use_mlock": (False, "memory is not locked"),
    "n_batch": (512, "prompts are read in batches of 512 tokens, by which texts keep their bits"),
    "n_ubatch": (512, "prompts are read in batches of 512 tokens, by which texts keep their bits"),
    "n_threads_batch": (None, "prompts are read with n_threads threads"),
    "attention_type": (-1, "the model's own is used"),
    "offload_kqv": (True, "the cache of layers on a GPU is there"),
    "flash_attn": (False, "llama.cpp uses flash attention wherever it can"),
    "op_offload": (None, "llama.cpp's default is used"),
    "swa_full": (None, "sliding windows keep their window only"),
    "no_perf": (False, "llama.cpp's own timings are not taken"),
    "lora_base": (None, "an adapter changes the model that it is given for"),
    "numa": (False, "llama.cpp's default is used"),
    "draft_model": (None, "the model drafts for itself; see method"),
    # Of earlier versions, which LangChain still gives.
    "n_parts": (-1, "the parts of a model are found by its first file"),
    "f16_kv": (True, "type_k and type_v say what the cache holds"),
    "device": (None, "n_gpu_layers says what is on a GPU"),
}
_LANGCHAIN = {"n_batch": 8, "f16_kv": False}
"""Its own defaults, which nobody has chosen."""

OF_EMBEDDINGS = (
    *("attention_type", "flash_attn", "n_batch", "n_threads_batch", "n_ubatch", "offload_kqv"),
    *("op_offload", "swa_full", "use_mlock", "use_mmap"),
)
"""Those of them that mean something to embeddings."""

# What would change the text if it were ignored.
REFUSED = {
    "kv_overrides": "change the model's file instead",
    "tokenizer": "the model's own is used",
}

NOT_HERE = {
    **dict.fromkeys(
        ("ctx", "_ctx", "_batch", "_sampler", "_init_sampler", "_candidates"),
        "it belongs to drafting; use eval(), sample(), eval_logits and scores",
    ),
    **dict.fromkeys(("draft_model",), "the model drafts for itself; see method"),
}
"""Attributes of llama-cpp-python's class that there are none of, and why."""

_ROPE_SCALINGS = {-1: None, 0: "none", 1: "linear", 2: "yarn"}


def check_others(others: Mapping[str, Any], known: set[str], *, embedding: bool) -> None:
    """Says what arguments of llama-cpp-python do nothing here, and refuses what it would not take
    or what would change the text.

    Args:
        others: arguments that mean nothing here.
        known: names of those that do.
        embedding: whether texts are to be embedded.

    Raises:
        BadValue: one is refused.
    """
    for name, value in others.items():
        if name in WITHOUT_MEANING:
            default, why = WITHOUT_MEANING[name]
            of_use = embedding and name in OF_EMBEDDINGS
            usual = (default, None, _LANGCHAIN.get(name, default))
            if value not in usual and not of_use:
                _log.warning("Llama(%s=%r) changes nothing here: %s", name, value, why)
        elif name in REFUSED:
            if value is not None:
                raise BadValue(f"Llama takes no {name} here; {REFUSED[name]}")
        else:
            names = [*known, *WITHOUT_MEANING]
            close = difflib.get_close_matches(name, names, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "see docs/python.md"
            raise BadValue(f"Llama has no argument {name!r}; {advice}")


def model_options(
    *,
    type_k: int | str | None,
    type_v: int | str | None,
    lora_path: str | None,
    lora_scale: float,
    rope_scaling_type: int | None,
    yarn_attn_factor: float,
    yarn_beta_fast: float,
    yarn_beta_slow: float,
    **positions: Any,
) -> ModelOptions:
    """Adapters, positions and cache types as the model's options.

    Raises:
        BadInput: one that cannot be.
    """
    if rope_scaling_type not in (None, *_ROPE_SCALINGS):
        raise BadValue(f"there is no rope_scaling_type {rope_scaling_type}; give -1 to 2")
    yarn = {
        "yarn_attn_factor": (yarn_attn_factor, 1.0),
        "yarn_beta_fast": (yarn_beta_fast, 32.0),
        "yarn_beta_slow": (yarn_beta_slow, 1.0),
    }
    # llama-cpp-python's defaults stand for llama.cpp's, which are the model's.
    positions.update({key: value for key, (value, usual) in yarn.items() if value != usual})
    return ModelOptions(
        lora=(Lora(Path(lora_path), lora_scale),) if lora_path else (),
        type_k=_cache_type("type_k", type_k),
        type_v=_cache_type("type_v", type_v),
        rope_scaling_type=_ROPE_SCALINGS[-1 if rope_scaling_type is None else rope_scaling_type],  # type: ignore[arg-type]
        **positions,
    )


def _cache_type(name: str, given: int | str | None) -> Any:
    """A type of cache by its name, or by its number in ggml.h."""
    if given is None or given in KV_TYPES:
        return given or "f16"
    for found, (number, _) in KV_TYPES.items():
        if given == number:
            return found
    raise BadValue(f"{name} is {given!r}; give one of {', '.join(KV_TYPES)}, or its number")
