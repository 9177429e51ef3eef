"""A next-state head in closed form: the ridge regression that cross-entropy starts from."""

from __future__ import annotations

from edge_conflayers.fitting.ridge import RidgeSums
from edge_conflayers.next_state.head import Floats
from edge_conflayers.next_state.training_data import Features

_RIDGE = 800.0  # r, in tokens whose features say nothing; how it was chosen is not recorded
_CHUNK = 2048  # tokens of one matrix product; not tuned


def ridge(features: Features) -> Floats:
    """The map from ``features.inputs`` to ``features.targets`` that ``RidgeSums`` finds.

    Args:
        features: at least one sample.

    Returns:
        float32 [3 * n_embd, 2 * n_embd].
    """
    n_embd, samples = features.n_embd, features.samples
    sums = RidgeSums(3 * n_embd, 2 * n_embd)
    for begin in range(0, len(samples), _CHUNK):
        places = samples[begin : begin + _CHUNK]
        sums.add(features.inputs(places), features.targets(places))
    return sums.solve(_RIDGE)
