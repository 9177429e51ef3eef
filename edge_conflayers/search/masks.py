"""Masks in a profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.errors import BadInput
from edge_conflayers.session import LayerMask


def mask_state(mask: LayerMask) -> dict[str, list[int]]:
    """JSON-able."""
    return {"attention": sorted(mask.attention), "mlp": sorted(mask.mlp)}


def mask_from_state(state: Mapping[str, Any], kind: str, n_layer: int) -> LayerMask:
    """The mask in a search's state, under "mask", as ``mask_state`` gave it.

    Raises:
        BadInput: not a state of that kind of search for a model of n_layer layers.
    """
    try:
        if (state["kind"], state["n_layer"]) != (kind, n_layer):
            raise ValueError(f"it is {state['kind']!r} of {state['n_layer']} layers")
        mask = LayerMask(*(frozenset(state["mask"][name]) for name in ("attention", "mlp")))
        for layer in mask.attention | mask.mlp:
            if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < n_layer:
                raise ValueError(f"there is no layer {layer!r}")
    except (KeyError, TypeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            f"the saved {kind} state cannot be used ({why}): start anew with --fresh"
        ) from error
    return mask
