"""Sets of sub-layers as searches count them.

Candidates are numbered: first the attentions of layers 1 .. n_layer - 2, then their MLPs. The first
and the last layer are never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput


def candidates(n_layer: int) -> int:
    """The number of sub-layers that can be dropped.

    Raises:
        BadInput: the model has too few layers to drop any.
    """
    if n_layer < 3:
        raise BadInput(
            f"the model has {n_layer} layers and dropping layers needs at least 3: use --method"
            " plain"
        )
    return 2 * (n_layer - 2)


def mask_of(indices: Iterable[int], n_layer: int) -> LayerMask:
    """The mask of a set of candidates."""
    half = n_layer - 2
    chosen = set(indices)
    return LayerMask(
        attention=frozenset(i + 1 for i in chosen if i < half),
        mlp=frozenset(i - half + 1 for i in chosen if i >= half),
    )


def members(mask: LayerMask, n_layer: int) -> npt.NDArray[np.bool_]:
    """Which candidates a mask drops: bool [candidates]."""
    return np.array(
        [layer in kind for kind in (mask.attention, mask.mlp) for layer in range(1, n_layer - 1)],
        dtype=np.bool_,
    )
