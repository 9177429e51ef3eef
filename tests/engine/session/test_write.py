"""Plain decoding of several tokens in one call: what the same steps give one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from steps import Tiny, open_session, random_tokens

from edge_conflayers.drafters.lookup import LookupSource
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import MOST_WRITTEN, ContextFull, Session
from edge_conflayers.errors import BadInput

PROMPT = 9
END = 2
ANY = float("inf")  # seconds
NEVER = float("-inf")
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 3, "logit_bias": {END: NEVER}},
    "penalties": {"temperature": 0.8, "seed": 4, "repeat_penalty": 1.3, "logit_bias": {END: NEVER}},
    "grammar": {"temperature": 1.0, "seed": 5, "grammar": "root ::= [a-z ]*"},
}


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", layer_gain=0.3)


def sampler_of(model: Model, name: str) -> Sampler:
    return Sampler(model, SamplerSettings(**SAMPLERS[name]))


def one_by_one(session: Session, pending: Sequence[int], sampler: Sampler, n: int) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < n and not (tokens and session.model.ends_text(tokens[-1])):
        session.step(pending, outputs="all")
        tokens.append(sampler.sample(session, -1))
        pending = tokens[-1:]
    return tokens


def writing_session(model: Model, **settings: Any) -> Session:
    session = open_session(model, **{"n_ctx": 128, **settings})
    session.read(random_tokens(model, PROMPT))
    return session


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n_pending", [1, 3])
@pytest.mark.parametrize("most", [1, 2, MOST_WRITTEN])
def test_the_same_as_step_by_step(model: Model, name: str, n_pending: int, most: int) -> None:
    pending = random_tokens(model, n_pending, seed=1)
    texts, logits = [], []
    for together in (False, True):
        with (
            writing_session(model) as session,
            closing(sampler_of(model, name)) as sampler,
        ):
            sampler.read(session.tokens)
            if together:
                stretch = session.write(pending, sampler.native, most=most, seconds=ANY)
                assert len(stretch.seconds) == len(stretch.tokens) and min(stretch.seconds) > 0
                assert not stretch.woken
                texts.append(stretch.tokens)
            else:
                texts.append(one_by_one(session, pending, sampler, most))
            assert session.tokens[PROMPT:] == [*pending, *texts[-1][:-1]]
            logits.append(session.logits().tobytes())
    assert texts[0] == texts[1] and logits[0] == logits[1]
    assert len(texts[0]) == most or model.ends_text(texts[0][-1])


def test_no_more_than_fit_in_a_call(model: Model) -> None:
    with writing_session(model) as session, closing(sampler_of(model, "sampled")) as sampler:
        assert len(session.write([7], sampler.native, most=100, seconds=ANY).tokens) == MOST_WRITTEN


def test_time_is_up_after_the_first_token(model: Model) -> None:
    with writing_session(model) as session, closing(sampler_of(model, "sampled")) as sampler:
        assert len(session.write([7], sampler.native, most=9, seconds=0.0).tokens) == 1


def test_the_end_of_the_text_is_the_last_token(model: Model) -> None:
    settings = SamplerSettings(temperature=1.0, seed=5, logit_bias={END: 3.0})
    ended = 0
    for seed in range(8):
        with writing_session(model) as session, closing(Sampler(model, settings)) as sampler:
            stretch = session.write([7 + seed], sampler.native, most=MOST_WRITTEN, seconds=ANY)
            assert END not in stretch.tokens[:-1]
            ended += stretch.tokens[-1] == END and len(stretch.tokens) > 1
    assert ended > 0


@pytest.mark.parametrize("room", [1, 2, 5])
def test_until_the_context_is_full(model: Model, room: int) -> None:
    with open_session(model, n_ctx=PROMPT + room) as session:
        session.read(random_tokens(model, PROMPT))
        with closing(sampler_of(model, "sampled")) as sampler:
            stretch = session.write([7], sampler.native, most=MOST_WRITTEN, seconds=ANY)
            assert len(stretch.tokens) == room and session.room == 0
            with pytest.raises(ContextFull):
                session.write(stretch.tokens[-1:], sampler.native, most=1, seconds=ANY)
            assert session.tokens[PROMPT:] == [7, *stretch.tokens[:-1]]


def test_a_grammar_that_cannot_go_on(model: Model) -> None:
    """What was drawn before stands; the call that draws nothing leaves the text as it was."""
    grammar = 'root ::= [a-z] [a-z] [a-z] "\\U0001F9FF\\U0001F9FF\\U0001F9FF"'
    settings = SamplerSettings(temperature=1.0, seed=1, grammar=grammar, logit_bias={END: NEVER})
    with writing_session(model) as session, closing(Sampler(model, settings)) as sampler:
        text, pending = [], [7]
        with pytest.raises(BadInput, match="the grammar allows no token here; check"):
            for _ in range(20):
                held = list(session.tokens)
                stretch = session.write(pending, sampler.native, most=MOST_WRITTEN, seconds=ANY)
                text += stretch.tokens
                pending = stretch.tokens[-1:]
        assert len(text) >= 1
        assert session.tokens == held == [*random_tokens(model, PROMPT), 7, *text[:-1]]


def test_an_interrupt_leaves_the_text_that_the_cache_has(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_conflayers.engine import binding

    write = binding.ecl_write

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with writing_session(model) as session, closing(sampler_of(model, "greedy")) as sampler:
        expected = one_by_one(session, [7], sampler, 5)
        session.rollback(PROMPT)
        monkeypatch.setattr(binding, "ecl_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.write([7], sampler.native, most=5, seconds=ANY)
        assert session.tokens[PROMPT:] == [7, *expected[:-1]]
        session.step(expected[-1:])
        session.rollback(PROMPT + 2)
        monkeypatch.undo()
        assert (
            session.write(expected[1:2], sampler.native, most=3, seconds=ANY).tokens
            == (expected[2:5])
        )


def test_a_lookup_ends_it_as_soon_as_it_expects_a_token(model: Model) -> None:
    with writing_session(model) as session, closing(sampler_of(model, "greedy")) as sampler:
        text = one_by_one(session, [7], sampler, MOST_WRITTEN)
        session.rollback(PROMPT)
        for place in range(1, len(text) - 1):  # known is what comes after some token
            known, follower = LookupSource(), LookupSource()
            for source in (known, follower):
                source.restart([*text[place - 1 : place + 2], 1])
                source.restart([7])
            likeliest = [known.follow(token) for token in text]
            first = next(i for i, each in enumerate(likeliest) if each >= 0.3)
            stretch = session.write(
                [7],
                sampler.native,
                most=MOST_WRITTEN,
                seconds=ANY,
                watch=[follower.handle],
                wake_at=0.3,
            )
            assert stretch.woken and stretch.tokens == text[: first + 1]
            follower.followed(stretch.tokens)
            rest = text[first + 1 :]
            assert [follower.follow(token) for token in rest] == likeliest[first + 1 :]
            session.rollback(PROMPT)


def test_the_steps_seconds_are_part_of_the_calls(model: Model) -> None:
    with writing_session(model) as session, closing(sampler_of(model, "greedy")) as sampler:
        session.write([7], sampler.native, most=3, seconds=ANY)
        began = time.perf_counter()
        stretch = session.write([8], sampler.native, most=MOST_WRITTEN, seconds=ANY)
        assert sum(stretch.seconds) <= time.perf_counter() - began
