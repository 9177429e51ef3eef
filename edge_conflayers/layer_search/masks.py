"""Layer masks as a profile keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput


def mask_state(mask: LayerMask) -> dict[str, list[int]]:
    """The mask, JSON-able; ``mask_from_json`` restores it."""
    return {"attention": sorted(mask.attention), "mlp": sorted(mask.mlp)}


def mask_from_json(value: Any, n_layer: int) -> LayerMask:
    """Restores what ``mask_state`` gave, for a model of n_layer layers.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, Mapping) or set(value) != {"attention", "mlp"}:
        raise ValueError(f"{value!r} is not a set of sub-layers")
    kinds = {}
    for name, layers in value.items():
        if not isinstance(layers, list) or not all(
            type(layer) is int and 0 <= layer < n_layer for layer in layers
        ):
            raise ValueError(f"{name} layers {layers!r} are not all within 0..{n_layer - 1}")
        kinds[name] = frozenset(layers)
    return LayerMask(**kinds)


def mask_from_state(state: Mapping[str, Any], kind: str, n_layer: int) -> LayerMask:
    """The mask in a search's state, under "mask", as ``mask_state`` gave it.

    Raises:
        BadInput: not a state of that kind of search for a model of n_layer layers.
    """
    try:
        if (state["kind"], state["n_layer"]) != (kind, n_layer):
            raise ValueError(f"it is {state['kind']!r} of {state['n_layer']} layers")
        return mask_from_json(state["mask"], n_layer)
    except (KeyError, TypeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            f"the saved {kind} state cannot be used ({why}): start anew with --fresh"
        ) from error
