"""Foreseen tokens as candidates: when they hold, and when asking for them pays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from steps import Tiny, open_session, random_tokens

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.controller.step_times import StepTimes
from edge_conflayers.decoding.round import Round
from edge_conflayers.drafters import next_state as module
from edge_conflayers.drafters.next_state import NextStateSource
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.errors import BadInput
from edge_conflayers.next_state.head import NextStateHead

V = {2: 1.05, 4: 1.1, 8: 1.3}
LIKELIHOODS = (0.5, 0.2, 0.1, 0.05)
Tree = tuple[list[int], list[float], list[int]]


@pytest.fixture
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=3)


@pytest.fixture
def foreseen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Makes every head foresee tokens 10, 11, 12, 13; what was asked: token and state's size."""
    asked = []

    def tree(context: Any, state: Any, token: int, options: Any) -> Tree:
        asked.append((token, len(state)))
        return [10, 11, 12, 13], list(LIKELIHOODS), [-1] * 4

    monkeypatch.setattr(module, "next_tree", tree)
    return asked


def source_of(model: Model, clock: Any = lambda: 0.0) -> NextStateSource:
    weights = np.ones((2 * model.n_embd, 3 * model.n_embd), dtype=np.float32)
    return NextStateSource(NextStateHead(weights), clock=clock)


def foreseen_by(source: NextStateSource, limit: int, **rest: Any) -> Draft:
    source.look_ahead()
    return source.candidates(limit, **rest)


@contextmanager
def begun(model: Model, clock: Any = lambda: 0.0) -> Iterator[tuple[Session, NextStateSource]]:
    """A session that has read a prompt and one token, and a source that follows it."""
    with open_session(model) as session:
        session.read(random_tokens(model, 9))
        source = source_of(model, clock)
        assert source.begin(session, StepTimes(1.0, V), AcceptanceRates())
        source.observe(session, [4])
        assert foreseen_by(source, 8).tokens == ()  # prompts keep no state
        session.step([4])
        source.learn(session, Round((4,), Draft(), (), 5, 2))
        yield session, source


def rounds(session: Session, source: NextStateSource, tokens: list[int]) -> list[Draft]:
    """Plain rounds of a text that draws these tokens, and what was proposed before each."""
    proposed = []
    drawn = tokens[0]
    for generated, token in enumerate(tokens[1:], start=len(session) - source._prompt + 2):
        source.observe(session, [drawn])
        proposed.append(foreseen_by(source, 8))
        session.step([drawn])
        source.learn(session, Round((drawn,), Draft(), (), token, generated))
        drawn = token
    return proposed


def test_siblings_follow_the_token_just_drawn(
    model: Model, foreseen: list[tuple[int, int]]
) -> None:
    with begun(model) as (session, source):
        source.observe(session, [42])
        draft = foreseen_by(source, 3)
        assert draft.tokens == (10, 11, 12) and draft.parents == (ROOT,) * 3
        assert draft.probabilities == LIKELIHOODS[:3] and set(draft.sources) == {"next-state"}
        assert foreseen_by(source, 8, least=0.15).tokens == (10, 11)
        assert foreseen_by(source, 8, chain=True).tokens == (10,)
        assert foreseen_by(source, 0).tokens == ()
        assert foreseen == [(42, 2 * model.n_embd)]  # once a round


def test_a_state_holds_for_the_token_drawn_from_it_only(
    model: Model, foreseen: list[tuple[int, int]]
) -> None:
    with begun(model) as (session, source):
        session.step([5])
        source.observe(session, [6])  # a round went by that it did not hear of
        assert foreseen_by(source, 8).tokens == ()
        source.learn(session, Round((5,), Draft(), (), 6, 3))
        source.observe(session, [6])
        assert foreseen_by(source, 8).tokens == (10, 11, 12, 13)


def test_after_a_branch_it_is_the_branchs_state(model: Model, monkeypatch: Any) -> None:
    """Of a tree's nodes the one that the last token was drawn from."""
    states = []

    def tree(context: Any, state: Any, *rest: Any) -> Tree:
        states.append(state)
        return [1], [0.5], [-1]

    monkeypatch.setattr(module, "next_tree", tree)
    prompt, (a, b, c, d) = random_tokens(model, 9), random_tokens(model, 4, 1)
    with open_session(model) as session:
        session.read(prompt)
        source = source_of(model)
        source.begin(session, StepTimes(1.0, V), AcceptanceRates())
        draft = Draft((b, c), (0.5, 0.5), (ROOT, ROOT))
        session.verify([a], draft)
        session.rollback(len(prompt) + 1)
        source.learn(session, Round((a,), draft, (1,), d, 3))
        source.observe(session, [c, d])
        foreseen_by(source, 1)
        session.rollback(len(prompt))
        session.step([a])
        session.step([c])
        source.learn(session, Round((c,), Draft(), (), d, 3))
        source.observe(session, [d])
        foreseen_by(source, 1)
    assert (states[0] == states[1]).all()


def test_deeper_tokens_follow_their_parents(model: Model, monkeypatch: Any) -> None:
    tree = [10, 20, 11, 30], [0.6, 0.5, 0.2, 0.1], [-1, 0, -1, 1]
    monkeypatch.setattr(module, "next_tree", lambda *rest: tree)
    with begun(model) as (session, source):
        source.observe(session, [3])
        draft = foreseen_by(source, 8)
        assert draft.tokens == (10, 20, 30, 11) and draft.parents == (ROOT, 0, 1, ROOT)
        assert draft.probabilities == (0.6, 0.5, 0.1, 0.2)


@pytest.mark.parametrize("right", [True, False])
def test_what_does_not_pay_is_seldom_asked(
    model: Model, foreseen: list[tuple[int, int]], right: bool
) -> None:
    ticks = itertools.count()
    with begun(model, lambda: 0.05 * next(ticks)) as (session, source):
        proposed = rounds(session, source, [11 if right else 20] * 200)
    asked = sum(bool(draft.tokens) for draft in proposed)
    assert asked == len(proposed) if right else asked < 0.35 * len(proposed)


def test_a_source_that_pays_again_is_asked_again(
    model: Model, foreseen: list[tuple[int, int]]
) -> None:
    with begun(model) as (session, source):
        rounds(session, source, [20] * 100)
        proposed = rounds(session, source_again(source, session), [11] * 150)
    assert all(draft.tokens for draft in proposed[-50:])


def source_again(source: NextStateSource, session: Session) -> NextStateSource:
    """The same source at the begin of another text."""
    source.begin(session, StepTimes(1.0, V), AcceptanceRates())
    return source


def test_what_cannot_be_served_is_not_used(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> None:
        raise BadInput("no")

    with open_session(model) as session:
        session.read(random_tokens(model, 9))
        monkeypatch.setattr(module, "next_tree", refused)
        source = source_of(model)
        assert source.begin(session, StepTimes(1.0, V), AcceptanceRates())
        source.observe(session, [3])
        assert foreseen_by(source, 4).tokens == ()
        monkeypatch.setattr(module, "set_next_state", refused)
        assert not source_of(model).begin(session, StepTimes(1.0, V), AcceptanceRates())
