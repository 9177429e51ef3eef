"""Stop strings: what is shown, whatever the pieces are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.errors import BadInput
from edge_conflayers.stop_strings import StopStrings

TEXTS = st.text("abc", max_size=30)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


def shown(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    watch = StopStrings(stops)
    text = "".join([watch.feed(piece) for piece in pieces])
    return text + watch.rest(), watch.found


@given(TEXTS, STOPS)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(
    text: str, stops: list[str]
) -> None:
    ended = [
        (end, len(text[:end]) - len(stop), stop)
        for end in range(len(text) + 1)
        for stop in stops
        if text[:end].endswith(stop)
    ]
    expected: tuple[str, str | None] = (text, None)
    if ended:
        _, start, stop = min(ended)
        expected = (text[:start], stop)
    assert shown(stops, [text]) == expected


@given(STOPS, st.data())
def test_where_the_pieces_are_cut_does_not_matter(stops: list[str], data: st.DataObject) -> None:
    text = data.draw(TEXTS)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    bounds = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    assert shown(stops, pieces) == shown(stops, [text])


@given(STOPS, TEXTS)
def test_no_more_is_held_back_than_could_begin_a_stop_string(stops: list[str], text: str) -> None:
    watch = StopStrings(stops)
    seen = watch.feed(text)
    if watch.found is None:
        held = text[len(seen) :]
        assert seen + held == text
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
        assert watch.rest() == held
    assert watch.rest() == ""


def test_nothing_is_shown_after_a_stop_string() -> None:
    watch = StopStrings(["END"])
    assert [watch.feed(piece) for piece in ("one E", "N", "D two", "three")] == ["one ", "", "", ""]
    assert watch.found == "END"
    assert watch.rest() == ""


def test_a_single_string_is_one_stop_string() -> None:
    watch = StopStrings("ab")
    assert watch.feed("a cab") == "a c"


def test_without_stop_strings_all_is_shown_at_once() -> None:
    assert StopStrings([]).feed("text") == "text"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(BadInput, match="empty"):
        StopStrings(["a", ""])
