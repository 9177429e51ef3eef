"""Size of a KV cache: the context that fits a task, and whether it fits in memory."""

from __future__ import annotations

from edge_conflayers import machine
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model_options import KV_TYPES
from edge_conflayers.engine.model_options import KVType as KVType
from edge_conflayers.errors import BadInput
from edge_conflayers.limits import MOST_INT32, check_number

_DEFAULT_CONTEXT = 4096  # as in llama.cpp's command-line tools
_OF_FREE_MEMORY = 0.5  # that a context for as long a text as possible may take; not tuned
_STEP = 1024


def context_for(
    model: LanguageModel, prompt_tokens: int, predict: int | None, wanted: int | None = None
) -> int:
    """Tokens of a context for a prompt and the text after it: the one rule for context sizes.

    Args:
        predict: most tokens to write; None for as many as fit.
        wanted: the size asked for; 0 for what the model was trained for. None for 4096 or what
            prompt and text need, whichever is more, but no more than the model was trained for;
            for as many as fit, what it was trained for, or less where that takes more than half of
            the free memory.

    Raises:
        BadInput: a negative size, or one that the prompt does not fit in.
    """
    trained = model.n_ctx_train or _DEFAULT_CONTEXT
    if wanted is not None:
        check_number("ctx-size (-c)", wanted, 0, MOST_INT32, whole=True)
        size = wanted or trained
    else:
        least = min(max(_DEFAULT_CONTEXT, prompt_tokens + (predict or 0)), trained)
        size = least if predict is not None else max(least, _fitting(model, trained))
    if prompt_tokens > size:
        advice = "" if size >= trained else " or take a larger context (-c)"
        raise BadInput(
            f"the prompt has {prompt_tokens} tokens, but the context holds {size};"
            f" shorten it{advice}"
        )
    return size


def _fitting(model: LanguageModel, n_ctx: int) -> int:
    """``n_ctx``, or less if the free memory asks for it."""
    free = machine.available_memory()
    needed = kv_cache_bytes(model, n_ctx)
    if free is None or needed <= free * _OF_FREE_MEMORY:
        return n_ctx
    return int(n_ctx * free * _OF_FREE_MEMORY / needed) // _STEP * _STEP


def kv_cache_bytes(model: LanguageModel, n_ctx: int, kv_type: KVType | None = None) -> int:
    """Bytes of keys and values for ``n_ctx`` tokens if every layer keeps all of them; sliding
    windows keep fewer.

    Args:
        kv_type: of keys and values; None for what the model's sessions take by default.
    """
    value_bytes = model.kv_value_bytes if kv_type is None else KV_TYPES[kv_type][1]
    heads = model.hyperparameter("attention.head_count", 1)
    heads_kv = model.hyperparameter("attention.head_count_kv", heads)
    head_dim = model.n_embd // max(heads, 1)  # recurrent models have none
    key = model.hyperparameter("attention.key_length", head_dim)
    value = model.hyperparameter("attention.value_length", head_dim)
    return int(n_ctx * model.n_layer * heads_kv * (key + value) * value_bytes)


def check_memory(model: LanguageModel, n_ctx: int, kv_type: KVType | None = None) -> None:
    """Refuses a KV cache that does not fit in free memory, as far as can be told.

    Raises:
        BadInput: it does not fit.
    """
    free = machine.available_memory()
    needed = kv_cache_bytes(model, n_ctx, kv_type)
    if free is None or model.on_gpu or "sliding_window" in " ".join(model.metadata):
        return
    if needed > free:
        fits = int(n_ctx * free / needed) // 1024 * 1024
        instead = f"try -c {fits} or less" if fits else "use a smaller model, or free some memory"
        raise BadInput(
            f"a context of {n_ctx} tokens needs {needed / 2**30:.1f} GiB,"
            f" {free / 2**30:.1f} GiB are free; {instead}"
        )
