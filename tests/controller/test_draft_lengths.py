"""Drafted and accepted lengths, position by position."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.controller.draft_lengths import RECENT_DRAFTS, DraftLengths


def test_it_starts_from_what_is_expected() -> None:
    drafted, accepted = DraftLengths(4.0, 2.5).expected(500)
    assert drafted == pytest.approx(4.0) and accepted == pytest.approx(2.5)
    assert DraftLengths(4.0, 2.5).expected(1) == pytest.approx((1.0, 2.5 / (1 + 0.75 * 2.5)))
    assert DraftLengths(0.0, 0.0).expected(3) == (1.0, 0.0)


def test_by_position() -> None:
    lengths = DraftLengths(3.0, 2.0)
    for _ in range(RECENT_DRAFTS):
        lengths.observe(8, 3, 1)
    drafted, accepted = zip(*(lengths.expected(n) for n in (1, 2, 3, 4, 8)), strict=True)
    assert drafted == pytest.approx((1, 2, 3, 3, 3), abs=0.35)
    assert accepted == pytest.approx((1, 1, 1, 1, 1), abs=0.15)
    assert lengths.wasted < 0.1


def test_drafts_that_were_cut_short_say_nothing_of_later_positions() -> None:
    cut, ended = DraftLengths(3.0, 2.0), DraftLengths(3.0, 2.0)
    for _ in range(RECENT_DRAFTS):
        cut.observe(2, 2, 2)
        ended.observe(8, 2, 2)
    assert cut.expected(2)[1] == pytest.approx(2.0, abs=0.2)
    assert cut.expected(6)[1] > 4.5
    assert ended.expected(6) == pytest.approx((2.0, 2.0), abs=0.25)


def test_it_forgets_the_oldest_draft() -> None:
    lengths, other = DraftLengths(3.0, 2.0), DraftLengths(3.0, 2.0)
    lengths.observe(8, 4, 0)
    for each in (lengths, other):
        each.observe(8, 3, 3)
    assert lengths.expected(4) != other.expected(4)
    lengths.forget_oldest()
    assert lengths.expected(4) == other.expected(4)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 11), st.integers(0, 12)), max_size=30),
    st.floats(0, 8),
    st.floats(0, 8),
)
def test_longer_drafts_bring_no_less(
    drafts: list[tuple[int, int, int]], drafted: float, accepted: float
) -> None:
    lengths = DraftLengths(drafted, accepted)
    for limit, left, of_them in drafts:
        n = max(1, limit - left)
        lengths.observe(limit, n, min(n, of_them))
    assert 0 < lengths.wasted < 1
    brought = [lengths.expected(n) for n in range(1, 13)]
    assert brought[0][0] == 1.0
    for (d0, a0), (d1, a1) in pairwise(brought):
        assert 0 <= d1 - d0 <= 1 and 0 <= a1 - a0 <= 1
