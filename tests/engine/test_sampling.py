"""llama.cpp's samplers against what they are defined to do."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from steps import Tiny, random_tokens

from edge_conflayers.decoding.speculate import generate
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import RANDOM_SEEDS, Sampler, SamplerSettings
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput, EdgeConflayersError

DRAWS = 3000


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=3)


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    """With the logits of a 12-token prompt's last token."""
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(random_tokens(model, 12))
        yield session


def draws(session: Session, settings: SamplerSettings, n: int) -> list[int]:
    """Many tokens from one distribution."""
    sampler = Sampler(session.model, settings)
    tokens = [sampler.sample(session, -1) for _ in range(n)]
    sampler.close()
    return tokens


def test_a_closed_sampler_draws_nothing(model: Model, session: Session) -> None:
    sampler = Sampler(model, SamplerSettings(temperature=1.0))
    sampler.close()
    sampler.close()
    with pytest.raises(EdgeConflayersError, match="closed"):
        sampler.sample(session, -1)


def text_of(model: Model, settings: SamplerSettings, *, n: int = 40, seed: int = 0) -> list[int]:
    with Session(model, n_ctx=512, threads=1) as session:
        sampler = Sampler(model, settings)
        tokens = list(generate(session, random_tokens(model, 12, seed), sampler, max_tokens=n))
        sampler.close()
    return tokens


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    e = np.exp(logits.astype(np.float64) - logits.max())
    result: npt.NDArray[np.float64] = e / e.sum()
    return result


def reference(
    logits: npt.NDArray[np.float32], settings: SamplerSettings
) -> npt.NDArray[np.float64]:
    """The distribution that top-k, top-p, min-p and temperature leave, in llama.cpp's order."""
    order = np.argsort(-logits, kind="stable")
    if settings.top_k > 0:
        order = order[: settings.top_k]
    p = softmax(logits[order])
    order = order[: int(np.searchsorted(np.cumsum(p), settings.top_p)) + 1]
    p = softmax(logits[order])
    order = order[p >= settings.min_p * p[0]]
    result = np.zeros(len(logits))
    result[order] = softmax(logits[order] / settings.temperature)
    return result


@pytest.mark.parametrize(
    "kind",
    [
        {"temperature": 1.0, "top_k": 5, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 2.5, "top_k": 8, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 0.4, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"temperature": 1.0, "top_k": 0, "top_p": 0.6, "min_p": 0.0},
        {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.2},
        {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"temperature": 1.2, "top_k": 6, "top_p": 0.7, "min_p": 0.3},
    ],
    ids=lambda kind: "-".join(map(str, kind.values())),
)
def test_draws_follow_the_distribution(session: Session, kind: dict[str, Any]) -> None:
    settings = SamplerSettings(seed=3, **kind)
    expected = reference(session.logits().copy(), settings)
    tokens = draws(session, settings, DRAWS)
    counts = np.bincount(tokens, minlength=len(expected))
    assert not counts[expected == 0].any()
    # Mean total variation of n draws over k outcomes is about sqrt(k / (2 pi n)); thrice that.
    k = (expected > 0).sum()
    distance = np.abs(counts / DRAWS - expected).sum() / 2
    assert distance <= 3 * np.sqrt(k / (2 * np.pi * DRAWS))


@pytest.mark.parametrize(
    "kind",
    [
        {"temperature": 0.0},
        {"temperature": 5.0, "top_k": 1},
        {"temperature": 5.0, "top_p": 0.0},
        {"temperature": 5.0, "min_p": 1.0},
        {"temperature": 0.0, "top_k": 7, "seed": 9},
    ],
    ids=str,
)
def test_settings_that_leave_only_the_most_likely(session: Session, kind: dict[str, Any]) -> None:
    best = int(session.logits().argmax())
    assert set(draws(session, SamplerSettings(**kind), 20)) == {best}


def test_a_seed_gives_one_text(model: Model) -> None:
    kind: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    texts = [text_of(model, SamplerSettings(seed=seed, **kind)) for seed in (1, 1, 2, 0, 2**32 - 1)]
    assert texts[0] == texts[1]
    assert len({tuple(text) for text in texts}) == 4


def test_greedy_text_is_the_argmax_of_each_step(model: Model) -> None:
    prompt = random_tokens(model, 12)
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(prompt)
        expected = []
        for _ in range(30):
            expected.append(int(session.logits().argmax()))
            if model.ends_text(expected[-1]):
                break
            session.step(expected[-1:])
    assert text_of(model, SamplerSettings(), n=30) == expected


@pytest.mark.parametrize(
    "kind",
    [
        {"repeat_penalty": 1.7},
        {"repeat_penalty": 1.7, "repeat_last_n": 4},
        {"repeat_penalty": 1.3, "repeat_last_n": -1},
        {"repeat_penalty": 1.7, "repeat_last_n": 0},
        {"repeat_penalty": 0.7},
        {"frequency_penalty": 0.8},
        {"presence_penalty": 1.5},
        {"repeat_penalty": 1.1, "frequency_penalty": 0.3, "presence_penalty": 0.4},
    ],
    ids=lambda kind: "-".join(f"{k}={v}" for k, v in kind.items()),
)
def test_penalties(model: Model, kind: dict[str, Any]) -> None:
    """Greedy text under penalties, computed again by their definition, the prompt counted in."""
    settings = SamplerSettings(**kind)
    prompt = random_tokens(model, 12)
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(prompt)
        seen, expected = list(prompt), []
        for _ in range(40):
            logits = session.logits().copy()
            last_n = len(seen) if settings.repeat_last_n < 0 else settings.repeat_last_n
            recent = collections.Counter(seen[len(seen) - min(last_n, len(seen)) :])
            for token, count in recent.items():
                up = np.float32(settings.repeat_penalty)
                logits[token] = logits[token] * up if logits[token] <= 0 else logits[token] / up
                logits[token] -= np.float32(
                    count * settings.frequency_penalty + settings.presence_penalty
                )
            expected.append(int(logits.argmax()))
            if model.ends_text(expected[-1]):
                break
            seen.append(expected[-1])
            session.step(expected[-1:])
    found = text_of(model, settings, n=40)
    assert found == expected
    plain = text_of(model, SamplerSettings(), n=40)
    assert (found == plain) == (settings.repeat_last_n == 0)


def test_a_bias_forces_or_bans_a_token(session: Session) -> None:
    best = int(session.logits().argmax())
    second = int(np.argsort(session.logits())[-2])
    banned = SamplerSettings(logit_bias={best: float("-inf")})
    assert set(draws(session, banned, 5)) == {second}
    forced = SamplerSettings(logit_bias={77: 1000.0}, temperature=2.0)
    assert set(draws(session, forced, 50)) == {77}
    small = float(session.logits()[best] - session.logits()[second])
    assert set(draws(session, SamplerSettings(logit_bias={second: small + 0.01}), 5)) == {second}
    assert set(draws(session, SamplerSettings(logit_bias={second: small - 0.01}), 5)) == {best}


def test_a_bias_for_a_token_that_is_not_there(model: Model) -> None:
    for token in (-1, model.n_vocab):
        with pytest.raises(BadInput, match=f"no token {token}"):
            Sampler(model, SamplerSettings(logit_bias={token: 1.0}))


GRAMMARS: dict[str, tuple[str, str]] = {
    "choice": ('root ::= "yes" | "no" | "maybe so"', r"yes|no|maybe so"),
    "repeat": ('root ::= ("ab" | "c"){3,9} "."', r"(ab|c){3,9}\."),
    "bytes": ('root ::= [äöü]{4} "\\n"', r"[äöü]{4}\n"),
    "rules": (
        'root ::= call (";" call){0,2}\ncall ::= name "(" number ")"\n'
        'name ::= [a-z]{1,3}\nnumber ::= "0" | [1-9] [0-9]{0,3}',
        r"[a-z]{1,3}\((0|[1-9]\d{0,3})\)(;[a-z]{1,3}\((0|[1-9]\d{0,3})\)){0,2}",
    ),
}


def finished_text(model: Model, settings: SamplerSettings, seed: int) -> str:
    tokens = text_of(model, settings, n=300, seed=seed)
    assert model.ends_text(tokens[-1]), "not finished after 300 tokens"
    return model.text(tokens[:-1])


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_a_grammar_allows_only_its_texts(model: Model, name: str, temperature: float) -> None:
    grammar, pattern = GRAMMARS[name]
    for seed in range(6):
        settings = SamplerSettings(temperature=temperature, seed=seed, grammar=grammar)
        assert re.fullmatch(pattern, finished_text(model, settings, seed))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_grammar_that_allows_everything_changes_nothing(model: Model, temperature: float) -> None:
    anything = "root ::= [\\U00000000-\\U0010FFFF]*"
    kind: dict[str, Any] = {"temperature": temperature, "seed": 5, "top_k": 4}
    printable = {t: float("-inf") for t in range(3, 259)}  # single bytes need not be text
    free = text_of(model, SamplerSettings(**kind, logit_bias=printable))
    bound = text_of(model, SamplerSettings(**kind, logit_bias=printable, grammar=anything))
    assert free == bound and len(free) > 5


def test_greedy_with_a_grammar_takes_the_best_allowed(model: Model) -> None:
    """Step by step: the most likely token whose text may go on with digits."""
    settings = SamplerSettings(grammar="root ::= [0-9]{6}")
    prompt = random_tokens(model, 12)
    found = text_of(model, settings, n=6)
    with Session(model, n_ctx=512, threads=1) as session:
        session.read(prompt)
        digits = [t for t in range(model.n_vocab) if re.fullmatch(rb"[0-9]", model.piece(t))]
        for token in found:
            assert token == max(digits, key=lambda t: session.logits()[t])
            session.step([token])


def test_penalties_and_grammar_together(model: Model) -> None:
    settings = SamplerSettings(
        grammar="root ::= [a-z]{30}", repeat_penalty=5.0, repeat_last_n=-1, temperature=1.0
    )
    text = finished_text(model, settings, 0)
    assert re.fullmatch("[a-z]{30}", text)
    assert text_of(model, settings, n=40) == text_of(model, settings, n=40)


@pytest.mark.parametrize(
    "grammar", ["", " ", 'root ::= "unclosed', "start ::= [a-z]", "root ::= missing"]
)
def test_a_grammar_that_does_not_parse(model: Model, grammar: str) -> None:
    with pytest.raises(BadInput, match="grammar does not parse"):
        Sampler(model, SamplerSettings(grammar=grammar))


NAN, INFINITE = float("nan"), float("inf")
OUT_OF_RANGE: dict[str, list[Any]] = {
    "temperature": [-0.1, 1e-30, 1e4, NAN, INFINITE],
    "top-k": [-1, 2**31, 1.5, NAN, True],
    "top-p": [-0.1, 1.5, NAN, INFINITE],
    "min-p": [-0.5, 1.1, NAN, INFINITE],
    "seed": [-2, 2**32, 0.5],
    "repeat-penalty": [0.0, -1.0, 1e-30, 1e30, NAN, INFINITE],
    "repeat-last-n": [-2, 2**31, 1.5],
    "frequency-penalty": [-1e30, 1e30, NAN, INFINITE],
    "presence-penalty": [-1e30, 1e30, NAN, INFINITE],
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_settings_out_of_range(name: str) -> None:
    for value in OUT_OF_RANGE[name]:
        with pytest.raises(BadInput, match=f"^{name}.* is .*; it must be .*from .* to ") as error:
            SamplerSettings(**{name.replace("-", "_"): value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("bias", [NAN, INFINITE, 1e30])
def test_biases_out_of_range(bias: float) -> None:
    with pytest.raises(BadInput, match=r"a logit bias is .* it must be from"):
        SamplerSettings(logit_bias={3: bias})


def test_biases_that_leave_no_token(model: Model) -> None:
    every = dict.fromkeys(range(model.n_vocab), -INFINITE)
    with pytest.raises(BadInput, match="every token is banned"):
        Sampler(model, SamplerSettings(temperature=1.0, logit_bias=every))
    del every[77]
    assert text_of(model, SamplerSettings(temperature=1.0, logit_bias=every), n=3) == [77] * 3


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_a_random_seed_is_drawn_once(model: Model, seed: int) -> None:
    kind: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    drawn = [SamplerSettings(seed=seed, **kind) for _ in range(3)]
    assert len({settings.seed for settings in drawn}) == 3
    assert all(settings.seed not in RANDOM_SEEDS for settings in drawn)
    text = text_of(model, drawn[0])
    assert text == text_of(model, drawn[0])
    assert text == text_of(model, SamplerSettings(seed=drawn[0].seed, **kind))


@pytest.mark.parametrize(
    "kind",
    [
        {"temperature": 1e-3, "top_k": 0},
        {"temperature": 1e3},
        {"temperature": 1.0, "top_k": 2**31 - 1},
        {"repeat_penalty": 100.0, "frequency_penalty": 100.0, "presence_penalty": -100.0},
        {"repeat_penalty": 0.01, "repeat_last_n": 2**20, "temperature": 1.0},
        {"temperature": 1.0, "logit_bias": {5: 1e6, 6: -1e6}},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_can_be_drawn_with(model: Model, kind: dict[str, Any]) -> None:
    settings = SamplerSettings(seed=2**32 - 2, **kind)
    assert text_of(model, settings, n=8) == text_of(model, settings, n=8)
