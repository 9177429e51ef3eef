"""A head in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from head_worlds import WIDTH, linear_world

from edge_conflayers.next_state.regression import ridge


def test_a_linear_world_is_learned() -> None:
    data, truth, embedding_of = linear_world(20_000)
    features = data.features(embedding_of)
    weights = features.unscaled(ridge(features))
    assert weights.dtype == np.float32
    # The ridge takes 800 parts of 20,800.
    assert weights == pytest.approx(truth * 20_000 / 20_800, abs=0.03)


def test_more_text_teaches_more() -> None:
    errors = []
    for n in (1024, 4096, 16_384):
        data, truth, embedding_of = linear_world(n, noise=1.0)
        features = data.features(embedding_of)
        errors.append(np.abs(features.unscaled(ridge(features)) - truth).mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 3


@pytest.mark.parametrize("scale", [1e-3, 64.0])
def test_features_count_alike_whatever_their_scale(scale: float) -> None:
    def learned(scale: float) -> np.ndarray:
        data, _, embedding_of = linear_world(2048, scale=scale)
        features = data.features(embedding_of)
        return features.unscaled(ridge(features))

    one, scaled = learned(1.0), learned(scale)
    cut = 2 * WIDTH
    assert scaled[:, :cut] == pytest.approx(one[:, :cut], abs=1e-3)
    assert scale * scaled[:, cut:] == pytest.approx(one[:, cut:], abs=1e-3)


def test_a_feature_that_is_always_zero_gets_no_weight() -> None:
    data, _, embedding_of = linear_world(1024, silent=3)
    features = data.features(embedding_of)
    weights = features.unscaled(ridge(features))
    assert np.isfinite(weights).all() and not weights[:, 3].any()
