"""Locally typical sampling, top-n-sigma, XTC and DRY, against their definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from steps import Tiny, random_tokens

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput

DRAWS = 3000
FREE: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=2)


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(random_tokens(model, 30))
        yield session


def draws(session: Session, settings: SamplerSettings, n: int = DRAWS) -> list[int]:
    with closing(Sampler(session.model, settings)) as sampler:
        return [sampler.sample(session, -1) for _ in range(n)]


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    e = np.exp(logits.astype(np.float64) - logits.max())
    return e / e.sum()  # type: ignore[no-any-return]


def check(session: Session, kind: dict[str, Any], kept: Sequence[int]) -> None:
    """Draws come from these tokens, as likely as the model says they are among them."""
    logits = session.logits().copy()
    expected = np.zeros(len(logits))
    expected[list(kept)] = softmax(logits[list(kept)])
    counts = np.bincount(draws(session, SamplerSettings(seed=3, **{**FREE, **kind})))
    counts = np.pad(counts, (0, len(logits) - len(counts)))
    assert not counts[expected == 0].any()
    # Mean total variation of n draws over k outcomes is about sqrt(k / (2 pi n)); thrice that.
    distance = np.abs(counts / DRAWS - expected).sum() / 2
    assert distance <= 3 * np.sqrt(len(kept) / (2 * np.pi * DRAWS))


@pytest.mark.parametrize("typical_p", [0.2, 0.7])
def test_typical_keeps_the_least_surprising_surprises(session: Session, typical_p: float) -> None:
    p = softmax(session.logits())
    order = np.argsort(np.abs(-np.log(p) + (p * np.log(p)).sum()), kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), typical_p)) + 1]
    assert p.argmax() not in kept or typical_p > 0.5
    check(session, {"typical_p": typical_p}, kept.tolist())


@pytest.mark.parametrize("n", [1.5, 2.5])
def test_top_n_sigma_keeps_what_is_near_the_top(session: Session, n: float) -> None:
    logits = session.logits().astype(np.float64)
    kept = np.flatnonzero(logits >= logits.max() - n * logits.std())
    assert 1 < len(kept) < len(logits)
    check(session, {"top_n_sigma": n}, kept.tolist())


def test_xtc_keeps_the_last_of_the_likely(session: Session) -> None:
    order = np.argsort(-session.logits())
    p = softmax(session.logits())[order]
    threshold = float(p[3] + p[4]) / 2  # four are at least as likely
    always = {"xtc_probability": 1.0, "xtc_threshold": threshold}
    check(session, always, order[3:].tolist())
    greedy = SamplerSettings(**{**FREE, **always, "temperature": 0.0})
    assert set(draws(session, greedy, 20)) == {int(order[3])}
    half = draws(session, SamplerSettings(**{**FREE, **always, "xtc_probability": 0.5}))
    share = np.isin(half, order[:3]).mean()
    assert abs(share - p[:3].sum() / 2) < 0.05


def test_a_greedy_text_may_avoid_the_most_likely(session: Session) -> None:
    p = softmax(session.logits())
    best = int(p.argmax())
    assert set(draws(session, SamplerSettings(top_n_sigma=0.1), 20)) == {best}
    typical = SamplerSettings(typical_p=0.2, top_k=0, top_p=1.0, min_p=0.0)
    assert not typical.is_argmax
    assert best not in draws(session, typical, 20)


def repeated(seen: Sequence[int], breakers: set[int], allowed: int) -> dict[int, int]:
    """For each token, how long a sequence at the text's end it went on with before."""
    usable = next((i for i, token in enumerate(reversed(seen)) if token in breakers), len(seen))
    lengths: dict[int, int] = {}
    for at in range(len(seen) - 1):
        n = 0
        while n < min(usable, at + 1) and seen[at - n] == seen[len(seen) - 1 - n]:
            n += 1
        if n >= allowed and n > 0:
            lengths[seen[at + 1]] = max(lengths.get(seen[at + 1], 0), n)
    return lengths


@pytest.mark.parametrize(
    "kind",
    [
        {"dry_multiplier": 0.8},
        {"dry_multiplier": 2.0, "dry_base": 1.2, "dry_allowed_length": 1},
        {"dry_multiplier": 0.8, "dry_sequence_breakers": ()},
        {"dry_multiplier": 3.0, "dry_penalty_last_n": 20},
    ],
    ids=str,
)
def test_dry(model: Model, kind: dict[str, Any]) -> None:
    """Greedy text under DRY, computed again by its definition, the prompt counted in."""
    # Only six tokens are left, of which one is a line end, so that the text repeats itself.
    bias = dict.fromkeys([*range(270, 275), model.tokenize("\n", add_special=False)[-1]], 100.0)
    settings = SamplerSettings(logit_bias=bias, **kind)
    prompt = [*random_tokens(model, 6), 270, 271, 272, 270, 271]
    breakers = {model.tokenize(each, add_special=False)[-1] for each in ("\n", ":", '"', "*")}
    if settings.dry_sequence_breakers == ():
        breakers = set()
    last_n = settings.dry_penalty_last_n if settings.dry_penalty_last_n >= 0 else 10**6
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(prompt)
        seen, expected = list(prompt), []
        for _ in range(60):
            logits = session.logits().astype(np.float64)
            logits[list(bias)] += 100.0
            lengths = repeated(seen[-last_n:], breakers, settings.dry_allowed_length)
            for token, n in lengths.items():
                if token not in breakers:
                    power = n - settings.dry_allowed_length
                    logits[token] -= settings.dry_multiplier * settings.dry_base**power
            expected.append(int(logits.argmax()))
            if model.ends_text(expected[-1]):
                break
            seen.append(expected[-1])
            session.step(expected[-1:])
    assert len(expected) == 60
    without = SamplerSettings(logit_bias=bias)
    assert expected != greedy(model, prompt, without, len(expected))
    assert expected == greedy(model, prompt, settings, len(expected))


def greedy(model: Model, prompt: list[int], settings: SamplerSettings, n: int) -> list[int]:
    with (
        Session(model, n_ctx=512, threads=1) as session,
        closing(Sampler(model, settings)) as sampler,
    ):
        session.read(prompt)
        sampler.read(prompt)
        text = [sampler.sample(session, -1)]
        while len(text) < n and not model.ends_text(text[-1]):
            session.step(text[-1:])
            text.append(sampler.sample(session, -1))
    return text


@pytest.mark.parametrize(
    "kind",
    [
        {"typical_p": -0.1},
        {"typical_p": 1.1},
        {"top_n_sigma": float("nan")},
        {"xtc_probability": 2.0},
        {"xtc_threshold": -1.0},
        {"dry_multiplier": -1.0},
        {"dry_base": float("inf")},
        {"dry_allowed_length": -1},
        {"dry_penalty_last_n": -2},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(kind: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="it must be"):
        SamplerSettings(**kind)
