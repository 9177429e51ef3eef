"""Acceptance rates by source and stated probability."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.errors import BadInput


@given(st.floats(0, 1), st.floats(0, 1))
def test_rates_begin_as_stated(p: float, q: float) -> None:
    rates = AcceptanceRates()
    assert rates.rate("anyone", p) == pytest.approx(p)
    rates.observe("another", q, accepted=True)
    assert rates.rate("anyone", p) == pytest.approx(p)


def test_rates_become_what_happens() -> None:
    rates = AcceptanceRates()
    source = random.Random(0)
    for _ in range(2000):
        rates.observe("liar", 0.95, source.random() < 0.2)
        rates.observe("modest", 0.3, source.random() < 0.9)
    assert rates.rate("liar", 0.95) == pytest.approx(0.2, abs=0.1)
    assert rates.rate("modest", 0.3) == pytest.approx(0.9, abs=0.1)
    assert rates.rate("liar", 0.3) == pytest.approx(0.3)
    assert rates.table("liar")[7] == pytest.approx(0.2, abs=0.1)


def test_rates_in_other_texts_are_a_beginning() -> None:
    elsewhere = AcceptanceRates()
    for i in range(400):
        elsewhere.observe("liar", 0.95, accepted=i % 4 == 0)
    rates = AcceptanceRates()
    lines = rates.lines("liar")
    rates.expect("liar", elsewhere.counts("liar"))
    assert rates.rate("liar", 0.95) == pytest.approx(0.25, abs=0.12)
    assert lines[14] == rates.lines("liar")[14] > 0  # whoever reads them hears of it
    assert rates.rate("liar", 0.3) == pytest.approx(0.3)
    for _ in range(60):
        rates.observe("liar", 0.95, accepted=True)
    assert rates.rate("liar", 0.95) > 0.75  # a text's own count for more
    rates.expect("liar", elsewhere.counts("liar"))
    assert rates.rate("liar", 0.95) > 0.75  # it is known by now
    rates.expect("another", ())
    assert rates.rate("another", 0.4) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.floats(0, 1))
def test_rates_of_a_self_calibrated_source_are_what_it_says_but_for_a_factor(
    seen: list[tuple[float, bool]], p: float
) -> None:
    rates = AcceptanceRates()
    lines = rates.lines("lookup")
    rates.self_calibrate("lookup")
    assert rates.rate("lookup", p) == pytest.approx(p)
    for probability, accepted in seen:
        rates.observe("lookup", probability, accepted)
    factor = rates.rate("lookup", 0.5) / 0.5
    assert 0 < factor <= 1
    assert rates.rate("lookup", p) == pytest.approx(factor * p)
    assert (
        list(lines)
        == list(rates.lines("lookup"))
        == list(AcceptanceRates.from_state(rates.state()).lines("lookup"))
    )


def test_a_self_calibrated_source_that_promises_too_much() -> None:
    rates = AcceptanceRates()
    rates.self_calibrate("lookup")
    for i in range(400):
        rates.observe("lookup", 0.8, i % 5 < 2)
    assert rates.rate("lookup", 0.8) == pytest.approx(0.4, abs=0.03)
    assert rates.rate("lookup", 0.2) == pytest.approx(0.1, abs=0.01)
    for _ in range(1500):
        rates.observe("lookup", 0.8, True)
    assert rates.rate("lookup", 0.8) == pytest.approx(0.8)


def test_what_was_counted_before_a_source_was_self_calibrated_is_forgotten() -> None:
    """Profiles of earlier versions have counts of lookups."""
    rates = AcceptanceRates()
    for _ in range(50):
        rates.observe("lookup", 0.9, False)
    resumed = AcceptanceRates.from_state(rates.state())
    resumed.self_calibrate("lookup")
    resumed.expect("lookup", rates.counts("lookup"))
    assert resumed.rate("lookup", 0.9) == pytest.approx(0.9)
    assert resumed.state()["counts"] == {}


def test_old_counts_fade() -> None:
    rates = AcceptanceRates()
    for _ in range(3000):
        rates.observe("lookup", 0.8, accepted=False)
    for _ in range(300):
        rates.observe("lookup", 0.8, accepted=True)
    assert rates.rate("lookup", 0.8) > 0.6


def test_state() -> None:
    rates = AcceptanceRates()
    for i in range(50):
        rates.observe("lookup", i / 50, i % 3 == 0)
    again = AcceptanceRates.from_state(rates.state())
    assert again.state() == rates.state()
    assert again.table("lookup") == rates.table("lookup")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"counts": 3},
        {"counts": {"lookup": [[1, 2]]}},
        {"counts": {"lookup": [[1, 2]] * 8}},
        {"counts": {"lookup": [["x", 0]] * 8}},
        {"counts": {}, "trusted": 3},
        {"counts": {}, "trusted": {"lookup": [1]}},
        {"counts": {}, "trusted": {"lookup": [-1, 0]}},
        {"counts": {}, "trusted": {"lookup": [1, float("nan")]}},
        {"counts": {"lookup": [[float("inf"), 0]] * 8}},
    ],
)
def test_a_damaged_state(state: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        AcceptanceRates.from_state(state)


def test_what_other_texts_taught_of_a_self_calibrated_source_counts_for_little() -> None:
    rates = AcceptanceRates()
    rates.self_calibrate("lookup")
    for _ in range(100):
        rates.observe("lookup", 0.8, False)
    known = rates.rate("lookup", 0.8)
    rates.begin_text()
    assert known < rates.rate("lookup", 0.8) == pytest.approx(0.8 * 2 / 14)
    for _ in range(10):
        rates.observe("lookup", 0.8, True)
    after_ten = rates.rate("lookup", 0.8)
    assert after_ten == pytest.approx(0.8 * 12 / 22)
    rates.begin_text()
    assert rates.rate("lookup", 0.8) == pytest.approx(0.8 * (10 * 12 / 20 + 2) / 14)
