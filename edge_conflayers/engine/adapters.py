"""Loads LoRA adapters, and has contexts use them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_conflayers.engine import native
from edge_conflayers.engine.gguf_header import Header, read_header
from edge_conflayers.engine.model_options import Lora
from edge_conflayers.engine.native import llama
from edge_conflayers.errors import BadInput

_ALPHA = "adapter.lora.alpha"


class Adapters:
    """LoRA adapters of a model, which frees them.

    Args:
        model: llama.cpp's own pointer to it.
        name: what the user calls it by.
        architecture: as llama.cpp calls it.

    Raises:
        BadInput: a file that is no LoRA adapter, or none for this model.
    """

    def __init__(self, model: Any, name: Path, architecture: str, loras: Sequence[Lora]) -> None:
        self._scales = [each.scale for each in loras]
        self._handles = [_load(model, name, architecture, each.path) for each in loras]

    def set_on(self, context: Any) -> None:
        """Has a context use them from its first step on.

        Args:
            context: llama.cpp's own pointer to it.
        """
        n = len(self._handles)
        if n == 0:
            return
        handles = (llama.llama_adapter_lora_p_ctypes * n)(*self._handles)
        llama.llama_set_adapters_lora(context, handles, n, (ctypes.c_float * n)(*self._scales))


def _load(model: Any, name: Path, architecture: str, path: Path) -> Any:
    wrong = _wrong(read_header(path), architecture)
    if wrong is not None:
        raise BadInput(f"{path} is {wrong}; give a LoRA adapter that was made for {name}")
    native.log.recent.clear()
    handle = llama.llama_adapter_lora_init(model, os.fsencode(path))
    if not handle:
        why = native.log.first_error().removeprefix("failed to apply lora adapter: ")
        raise BadInput(
            f"the LoRA adapter {path} cannot be loaded: {why or 'llama.cpp does not say why'};"
            f" give one that was made for {name}"
        )
    if llama.llama_adapter_get_alora_n_invocation_tokens(handle):
        raise BadInput(
            f"{path} is an adapter that works from certain tokens on only (aLoRA), which is not"
            " supported; give a LoRA adapter"
        )
    return handle


def _wrong(header: Header, architecture: str) -> str | None:
    """What a file is instead of a LoRA adapter for a model of this architecture; None if it is one.
    llama.cpp aborts on values of other types."""
    if header.text("general.type") != "adapter":
        return "no LoRA adapter"
    if header.text("adapter.type") != "lora":
        return f"an adapter of type {header.text('adapter.type')!r}"
    if not isinstance(header.values.get(_ALPHA, 0.0), float):
        return f"damaged ({_ALPHA} is not a number of 32 bits)"
    if header.text("general.architecture") != architecture:
        return (
            f"for models of architecture {header.text('general.architecture')!r},"
            f" not {architecture!r}"
        )
    return None
