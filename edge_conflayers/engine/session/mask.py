"""Layer masks: the sub-layers that a step leaves out."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edge_conflayers.engine import binding
from edge_conflayers.errors import BadInput


@dataclass(frozen=True)
class LayerMask:
    """The sub-layers that a step leaves out.

    Attributes:
        attention: layers (0-based) whose attention is dropped.
        mlp: layers whose MLP is dropped.
    """

    attention: frozenset[int] = frozenset()
    mlp: frozenset[int] = frozenset()

    @classmethod
    def layers(cls, skip_set: Iterable[int]) -> LayerMask:
        """The mask that drops whole layers, attention and MLP."""
        skipped = frozenset(skip_set)
        return cls(attention=skipped, mlp=skipped)

    def __bool__(self) -> bool:
        return bool(self.attention or self.mlp)

    def packed(self, n_layer: int) -> Any:
        """The mask as ``ecl.h`` takes it: n_layer bytes.

        Raises:
            BadInput: a layer that the model does not have.
        """
        bits = (ctypes.c_uint8 * n_layer)()
        for layers, bit in (
            (self.attention, binding.DROP_ATTENTION),
            (self.mlp, binding.DROP_FFN),
        ):
            for layer in layers:
                if not 0 <= layer < n_layer:
                    raise BadInput(f"there is no layer {layer} to drop; the model has {n_layer}")
                bits[layer] |= bit
        return bits


NO_MASK = LayerMask()
