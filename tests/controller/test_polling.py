"""When the controller polls its sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edge_conflayers.controller.polling import Polling
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft

T1 = 0.004
DEAR = 0.05 * T1  # noticed
FREE = 0.001 * T1


class Watcher:
    """A lookup that knows in advance how likely its best candidates will be."""

    def __init__(self, *likeliest: float) -> None:
        self.likeliest = [*likeliest]
        self.text: list[int] = []
        self.handle = self

    def follow(self, token: int) -> float:
        self.text.append(token)
        return self.expects()

    def followed(self, tokens: Sequence[int]) -> None:
        self.text += tokens

    def expects(self) -> float:
        return self.likeliest.pop(0) if self.likeliest else 0.0


def polling_of(*lookups: Watcher) -> Polling:
    return Polling(lookups)  # type: ignore[arg-type]


def round_of(*tokens: int) -> Round:
    """Of which all but the last were drafted."""
    path = tuple(range(len(tokens) - 1))
    return Round((0,), Draft(tokens[:-1], (1.0,) * len(path)), path, tokens[-1], 1)


def polled(polling: Polling, *tokens: int, seconds: float = DEAR, **terms: Any) -> None:
    polling.polled(round_of(*tokens), seconds, T1, **{"may_draft": True, "wake_at": 0.5, **terms})


def skipped(polling: Polling, first: int = 100, together: int = 5) -> int:
    """Rounds until a poll is due again, some at a time as the loop decodes them."""
    n = 0
    while (back_off := polling.back_off()) is not None:
        assert not polling.due
        rounds, woken = [], False
        while len(rounds) < min(back_off.rounds, together) and not woken:
            rounds.append(round_of(first + n))
            woken = any(each.expects() >= back_off.wake_at for each in back_off.watch)
            n += 1
        polling.skipped(rounds, woken)
    assert polling.due
    return n


def test_polls_that_go_unnoticed_are_made_in_every_round() -> None:
    polling = polling_of(Watcher())
    for token in range(100):
        polled(polling, token, seconds=FREE)
        assert polling.due and not polling.followed


def test_a_lookup_wakes_up_as_soon_as_it_has_something() -> None:
    watcher = Watcher(0.0, 0.4, 0.49, 0.5)
    polling = polling_of(watcher)
    polled(polling, 7)
    assert skipped(polling) == 3
    assert polling.followed and watcher.text == [7, 100, 101, 102]


def test_it_follows_what_was_accepted_and_wakes_up_at_once() -> None:
    watcher = Watcher(0.9, 0.9, 0.9, 0.1, 0.1, 0.9)
    polling = polling_of(watcher)
    polled(polling, 1, 2, 3)
    assert polling.due and polling.followed
    polled(polling, 4, 5)  # only what may follow the last one counts
    assert skipped(polling) == 1 and watcher.text == [1, 2, 3, 4, 5, 100]


def test_now_and_then_a_poll_is_due_all_the_same() -> None:
    polling = polling_of(Watcher())
    for _ in range(20):  # which are not in vain: nothing was promised
        polled(polling, 1)
        assert skipped(polling) == 48


def test_fruitless_wake_ups_are_not_listened_to_for_long() -> None:
    polling = polling_of(Watcher(*[1.0] * 100))
    calls = 0
    while calls < 50:
        polled(polling, 1)
        if not polling.due:
            break
        calls += 1
    assert calls * DEAR <= 0.25 * T1 <= (calls + 1) * DEAR
    assert skipped(polling) == 16 and not polling.followed
    polled(polling, 1, 2)  # something was accepted
    assert polling.due and polling.followed


@pytest.mark.parametrize("terms", [{"may_draft": False}, {"wake_at": None}])
def test_nobody_watches_where_that_is_of_no_use(terms: dict[str, Any]) -> None:
    watcher = Watcher(*[1.0] * 100)
    polling = polling_of(watcher)
    for _ in range(10):
        polled(polling, 1, **terms)
        skipped(polling)
    assert not watcher.text and not polling.followed


def test_another_text() -> None:
    polling = polling_of(Watcher())
    polled(polling, 1)
    assert not polling.due
    polling.begin_text(())
    assert polling.due and not polling.followed and polling.usual_seconds == 0.0
