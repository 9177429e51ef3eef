"""The objective against rounds followed one by one, and against its closed form."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_conflayers.engine.session import LayerMask
from edge_conflayers.layer_search.objective import (
    LENGTHS,
    ROUNDS,
    STOPS,
    Record,
    best_prediction,
)

MASK = LayerMask.layers({1, 2})


@dataclass(frozen=True)
class Costs:
    """Every mask costs the same, every further token of a step the same."""

    draft: float = 0.5
    token: float = 0.1

    def c(self, mask: LayerMask) -> float:
        return self.draft

    def v(self, n: int) -> float:
        return 1 + self.token * (n - 1)


def followed(records: list[Record], stop: float, length: int, costs: Costs) -> float:
    """The speed by drafting token by token, after some rounds from every start."""
    tokens, time = 0, 0.0
    for start in range(len(records)):
        at = start
        for turn in range(2 * ROUNDS):
            drafted = accepted = 0
            right = True
            while drafted < length:
                record = records[(at + drafted) % len(records)]
                drafted += 1
                right = right and record.matches
                accepted += right
                if record.probability < stop:
                    break
            if turn >= ROUNDS:
                tokens += accepted + 1
                time += drafted * costs.draft + 1 + costs.token * drafted
            at += accepted + 1
    return tokens / time


probabilities = st.sampled_from([0.05, 0.3, 0.5, 0.77, 0.8, 0.96, 1.0])
texts = st.lists(st.builds(Record, st.booleans(), probabilities), min_size=1, max_size=40)


@given(texts, st.sampled_from(STOPS), st.integers(1, 12))
@settings(deadline=None)
def test_rounds_are_those_of_drafting_token_by_token(
    records: list[Record], stop: float, length: int
) -> None:
    found = best_prediction(records, MASK, Costs(), stops=[stop], lengths=[length])
    assert found.speed == pytest.approx(followed(records, stop, length, Costs()))


@given(texts)
@settings(deadline=None, max_examples=25)
def test_the_best_stop_rule_is_the_best_of_all(records: list[Record]) -> None:
    found = best_prediction(records, MASK, Costs())
    speeds = [followed(records, stop, n, Costs()) for stop in STOPS for n in LENGTHS]
    assert found.speed == pytest.approx(max(speeds))


@pytest.mark.parametrize("alpha", [0.5, 0.9])
@pytest.mark.parametrize("gamma", [1, 4, 10])
def test_independent_matches_give_the_published_expectation(alpha: float, gamma: int) -> None:
    source = random.Random(gamma)
    records = [Record(source.random() < alpha, source.random()) for _ in range(60_000)]
    found = best_prediction(records, MASK, Costs(), stops=[0.0], lengths=[gamma])
    expected = (1 - alpha ** (gamma + 1)) / (1 - alpha)
    assert found.tokens_per_round == pytest.approx(expected, rel=0.02)
    assert found.speed == pytest.approx(expected / (gamma * 0.5 + 1 + 0.1 * gamma), rel=0.02)


def test_independent_matches_with_a_stop_rule() -> None:
    """Confident with chance s, right with chance a if confident and b if not: token j is drafted
    if those before were confident, accepted if they were right too."""
    s, a, b, gamma = 0.8, 0.95, 0.3, 6
    source = random.Random(0)
    records = []
    for _ in range(60_000):
        confident = source.random() < s
        right = source.random() < (a if confident else b)
        records.append(Record(right, 0.9 if confident else 0.2))
    found = best_prediction(records, MASK, Costs(), stops=[0.5], lengths=[gamma])
    right = s * a + (1 - s) * b
    accepted = sum((s * a) ** j * right for j in range(gamma))
    drafted = sum(s**j for j in range(gamma))
    assert found.tokens_per_round == pytest.approx(1 + accepted, rel=0.02)
    assert found.acceptance == pytest.approx(accepted / drafted, rel=0.02)
    assert found.speed == pytest.approx((1 + accepted) / (1 + drafted * (0.5 + 0.1)), rel=0.02)


def test_a_round_starts_where_the_last_one_ended() -> None:
    """Nine right and one wrong, over and over: every round from a run's start gives ten tokens,
    though a start anywhere would give five and a half."""
    records = [Record(i % 10 != 9, 0.9) for i in range(100)]
    found = best_prediction(records, MASK, Costs(), stops=[0.0], lengths=[15])
    assert found.tokens_per_round == pytest.approx(10, rel=0.02)


def test_nothing_to_gain() -> None:
    wrong = best_prediction([Record(False, 0.99)] * 20, MASK, Costs())
    assert (wrong.max_draft, wrong.acceptance) == (1, 0.0)
    assert wrong.speed == pytest.approx(1 / (0.5 + 1.1))
    dear = best_prediction([Record(True, 0.99)] * 20, MASK, Costs(draft=1.0, token=0.2))
    assert dear.speed < 1 and dear.acceptance == 1.0


def test_a_stop_rule_that_keeps_the_sure_tokens_is_found() -> None:
    records = [Record(i % 4 != 3, 0.3 if i % 4 == 3 else 0.99) for i in range(64)]
    found = best_prediction(records, MASK, Costs())
    assert found.speed > 1
    assert found.stop_probability <= 0.95
    assert found.max_draft == 3 and found.acceptance == 1.0
