"""Every suffix of a text that occurred in it before, and what followed: a suffix automaton.

A *state* stands for all strings that end at the same places of the text (Blumer et al., "The
smallest automaton recognizing the subwords of a text", 1985). Adding a token takes amortised
constant time; states and transitions are linear in the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

ROOT = 0
"""The state of the empty string."""

# An occurrence is counted for this many states from the longest suffix on, so that a text like
# "a a a a ..." takes no quadratic time; only its shortest suffixes, which nobody asks for while
# there are longer ones, are counted too low.
_COUNTED_SUFFIXES = 32


class SuffixIndex:
    """An index over texts that grow token by token; no match spans two texts."""

    def __init__(self) -> None:
        self._followers: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]  # the longest suffix of a state's strings in another state
        self._length: list[int] = [0]  # of a state's longest string
        self._count: list[int] = [0]
        self._last = ROOT  # the whole text so far
        self.tokens = 0

    def begin(self) -> None:
        """Starts another text; the ones before it stay known."""
        self._last = ROOT

    def append(self, token: int) -> None:
        """Adds a token to the text."""
        known = self._followers[self._last].get(token)
        if known is None:
            state = self._add(token)
        elif self._length[known] == self._length[self._last] + 1:
            state = known
        else:
            state = self._split(self._last, token, known)
        self._last = state
        self.tokens += 1
        count, link = self._count, self._link
        for _ in range(_COUNTED_SUFFIXES):
            if state == ROOT:
                break
            count[state] += 1
            state = link[state]

    def _add(self, token: int) -> int:
        """A state for the text with a token that has not followed it before."""
        followers, link = self._followers, self._link
        state = self._new(self._length[self._last] + 1)
        shorter = self._last
        while shorter >= 0 and token not in followers[shorter]:
            followers[shorter][token] = state
            shorter = link[shorter]
        if shorter >= 0:
            known = followers[shorter][token]
            if self._length[known] == self._length[shorter] + 1:
                link[state] = known
            else:
                link[state] = self._split(shorter, token, known)
        return state

    def _split(self, before: int, token: int, state: int) -> int:
        """Takes the strings up to ``before`` and ``token`` out of a state that has longer ones."""
        followers, link = self._followers, self._link
        part = self._new(self._length[before] + 1)
        followers[part].update(followers[state])
        self._count[part] = self._count[state]
        link[part] = link[state]
        link[state] = part
        while before >= 0 and followers[before].get(token) == state:
            followers[before][token] = part
            before = link[before]
        return part

    def _new(self, length: int) -> int:
        self._followers.append({})
        self._link.append(ROOT)
        self._length.append(length)
        self._count.append(0)
        return len(self._length) - 1

    def matches(self, state: int | None = None) -> Iterator[int]:
        """The states of suffixes that something has followed, longest first, without ROOT.

        Args:
            state: whose strings' suffixes; None for the text's own end.
        """
        state = self._last if state is None else state
        while state > ROOT:
            if self._followers[state]:
                yield state
            state = self._link[state]

    def followers(self, state: int) -> Mapping[int, int]:
        """The tokens that have followed a state's strings, and the state that each leads to."""
        return self._followers[state]

    def count(self, state: int) -> int:
        """How often a state's strings have occurred."""
        return self._count[state]

    def length(self, state: int) -> int:
        """The length of a state's longest string; of the states that ``matches`` gives, that of
        the suffix itself."""
        return self._length[state]
