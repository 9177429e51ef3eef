"""When the controller looks for candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edge_conflayers.controller.polling import Looks
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft

T1 = 0.004
DEAR = 0.05 * T1  # is noticed
FREE = 0.001 * T1


class Follower:
    """Tells in advance how likely its best candidates will be."""

    name = "follower"
    weighed_seconds = 0.0
    calibrated = True
    learns_always = False
    handle = None

    def __init__(self, *likeliest: float) -> None:
        self.likeliest = [*likeliest]
        self.text: list[int] = []

    def follow(self, token: int) -> float:
        self.text.append(token)
        return self.expects()

    def followed(self, tokens: Sequence[int]) -> None:
        self.text += tokens

    def expects(self) -> float:
        return self.likeliest.pop(0) if self.likeliest else 0.0

    def observe(self, session: Any, pending: Sequence[int]) -> None: ...

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        return Draft()

    def learn(self, session: Any, round: Round) -> None: ...


def round_of(*tokens: int) -> Round:
    """Of which all but the last were drafted."""
    path = tuple(range(len(tokens) - 1))
    return Round((0,), Draft(tokens[:-1], (1.0,) * len(path)), path, tokens[-1], 1)


def looked(looks: Looks, *tokens: int, seconds: float = DEAR, **terms: Any) -> None:
    looks.made(round_of(*tokens), seconds, T1, **{"may_draft": True, "bar": 0.5, **terms})


def skipped(looks: Looks, first: int = 100, together: int = 5) -> int:
    """Rounds until a look is due again, some at a time as the loop decodes them."""
    n = 0
    while (pause := looks.pause()) is not None:
        assert not looks.due
        rounds, called = [], False
        while len(rounds) < min(pause.rounds, together) and not called:
            rounds.append(round_of(first + n))
            called = any(each.expects() >= pause.expected for each in pause.following)  # type: ignore[attr-defined]
            n += 1
        looks.passed(rounds, called)
    assert looks.due
    return n


def test_looks_that_go_unnoticed_are_made_in_every_round() -> None:
    looks = Looks([Follower()])
    for token in range(100):
        looked(looks, token, seconds=FREE)
        assert looks.due and not looks.followed


def test_a_source_calls_as_soon_as_it_has_something() -> None:
    follower = Follower(0.0, 0.4, 0.49, 0.5)
    looks = Looks([follower])
    looked(looks, 7)
    assert skipped(looks) == 3
    assert looks.followed and follower.text == [7, 100, 101, 102]


def test_it_follows_what_was_accepted_and_calls_at_once() -> None:
    follower = Follower(0.9, 0.9, 0.9, 0.1, 0.1, 0.9)
    looks = Looks([follower])
    looked(looks, 1, 2, 3)
    assert looks.due and looks.followed
    looked(looks, 4, 5)  # only what may follow the last one counts
    assert skipped(looks) == 1 and follower.text == [1, 2, 3, 4, 5, 100]


def test_now_and_then_a_look_is_due_all_the_same() -> None:
    looks = Looks([Follower()])
    for _ in range(20):  # which are not in vain: nothing was promised
        looked(looks, 1)
        assert skipped(looks) == 48


def test_calling_in_vain_is_not_listened_to_for_long() -> None:
    looks = Looks([Follower(*[1.0] * 100)])
    calls = 0
    while calls < 50:
        looked(looks, 1)
        if not looks.due:
            break
        calls += 1
    assert calls * DEAR <= 0.25 * T1 <= (calls + 1) * DEAR
    assert skipped(looks) == 16 and not looks.followed
    looked(looks, 1, 2)  # something was accepted
    assert looks.due and looks.followed


@pytest.mark.parametrize("terms", [{"may_draft": False}, {"bar": None}])
def test_nobody_follows_where_that_is_of_no_use(terms: dict[str, Any]) -> None:
    follower = Follower(*[1.0] * 100)
    looks = Looks([follower])
    for _ in range(10):
        looked(looks, 1, **terms)
        skipped(looks)
    assert not follower.text and not looks.followed


def test_another_text() -> None:
    looks = Looks([Follower()])
    looked(looks, 1)
    assert not looks.due
    looks.begin()
    assert looks.due and not looks.followed
    assert looks.usual_seconds == pytest.approx(DEAR)
