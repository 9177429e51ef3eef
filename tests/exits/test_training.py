"""Exits learn what a model made of matrices says: no file, no session."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edge_conflayers.exits import training
from edge_conflayers.exits.taught_exits import Floats
from edge_conflayers.exits.training import ExitMaps, ExitSamples, judge, solve, train
from edge_conflayers.fitting.adamw import AdamW

N_EMBD, N_ROWS = 16, 40
VOCABULARY = np.arange(100, 100 + N_ROWS, dtype=np.int32)


def samples_of(n: int, rows: Floats, *, noise: float, seed: int) -> ExitSamples:
    """Tokens whose last hidden states are a linear map of the second exit's stream; the first
    exit's has noise in it, and features of very different sizes."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(0.01, 100, N_EMBD)
    mixed = np.random.default_rng(0).normal(size=(N_EMBD, N_EMBD)) / np.sqrt(N_EMBD)
    stream = rng.normal(size=(n, N_EMBD))
    states = 3 * stream @ mixed
    noisy = (stream + noise * rng.normal(size=stream.shape)) * sizes
    best = VOCABULARY[(states @ rows.T).argmax(-1)]
    return ExitSamples(
        np.stack([noisy, stream]).astype(np.float16), states.astype(np.float16), best
    )


@pytest.fixture
def rows() -> Floats:
    return np.random.default_rng(1).normal(size=(N_ROWS, N_EMBD)).astype(np.float32)


def accuracy(maps: ExitMaps, samples: ExitSamples, rows: Floats) -> list[float]:
    return [float(each) for each in judge(maps, samples, rows, VOCABULARY)[1].mean(-1)]


def test_the_closed_form_finds_a_linear_map(rows: Floats) -> None:
    maps = solve(samples_of(4000, rows, noise=0.5, seed=2))
    test = samples_of(500, rows, noise=0.5, seed=3)
    first, second = accuracy(maps, test, rows)
    assert second > 0.97 and 0.4 < first < 0.9
    # Features are scaled to the same size, however large they are.
    features = test.streams[0].astype(np.float32) * maps.norms[0]
    assert (features**2).mean(0) == pytest.approx(1.0, rel=0.3)


def test_what_exits_say(rows: Floats) -> None:
    samples = samples_of(1500, rows, noise=0.3, seed=4)  # more than one chunk
    maps = solve(samples)
    entropies, right = judge(maps, samples, rows, VOCABULARY)
    for k in (0, 1):
        logits = (samples.streams[k] * maps.norms[k]) @ maps.weights[k].T @ rows.T
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        expected = -(p * np.log(p + 1e-30)).sum(-1)
        assert entropies[k] == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert np.array_equal(right[k], VOCABULARY[logits.argmax(-1)] == samples.best)


def test_cross_entropy_goes_on_from_there(rows: Floats) -> None:
    learned = samples_of(6000, rows, noise=0.5, seed=2)
    test = samples_of(1000, rows, noise=0.5, seed=3)
    maps = solve(learned)
    passes: list[int] = []
    better = train(maps, learned, test, rows, passes=4, on_pass=passes.append)
    assert passes == [1, 2, 3, 4]
    assert (training._losses(better, test, rows) < training._losses(maps, test, rows)).all()


def test_what_makes_it_worse_is_not_kept(rows: Floats) -> None:
    """Too few tokens, and others to test with."""
    learned = samples_of(700, rows, noise=0.5, seed=2)
    other = np.random.default_rng(9).normal(size=(N_ROWS, N_EMBD)).astype(np.float32)
    test = samples_of(300, other, noise=0.0, seed=3)
    flipped = ExitSamples(-test.streams, test.states, test.best)
    maps = solve(learned)
    kept = train(maps, learned, flipped, rows, passes=3)
    losses = training._losses(maps, flipped, rows)
    assert (training._losses(kept, flipped, rows) <= losses).all()


def test_it_ends_when_time_is_up(rows: Floats) -> None:
    learned = samples_of(6000, rows, noise=0.5, seed=2)
    maps = solve(learned)
    passes: list[int] = []
    began = time.monotonic()
    train(maps, learned, learned, rows, passes=10**6, deadline=began + 0.3, on_pass=passes.append)
    assert time.monotonic() - began < 20 and len(passes) < 10**6


def test_an_interrupt_keeps_the_best(rows: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = samples_of(3000, rows, noise=0.5, seed=2)
    maps = solve(learned)
    step = AdamW.step
    calls = iter(range(100))

    def interrupted(*arguments: object) -> None:
        step(*arguments)  # type: ignore[arg-type]
        if next(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(AdamW, "step", interrupted)
    kept = train(maps, learned, learned, rows, passes=3)
    assert next(calls) == 6
    assert (training._losses(kept, learned, rows) <= training._losses(maps, learned, rows)).all()
