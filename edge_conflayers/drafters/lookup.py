"""Drafts looked up in the text itself: what followed when its last tokens occurred before.

Prompt lookup with the longest match (SuffixDecoding, arXiv 2411.04975). As in prediction by
partial matching, a match leaves a chance that something else follows than did before; that share
goes to the next shorter match. How large it is for matches of each kind is learned from the text
as it is generated, whoever drafted it.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Sequence
from heapq import nlargest

from edge_conflayers.draft import Draft, Round
from edge_conflayers.drafters.calibration import Calibration
from edge_conflayers.drafters.suffix_index import ROOT, SuffixIndex
from edge_conflayers.drafters.trees import best_first
from edge_conflayers.session import Session

NAME = "lookup"

_LENGTHS = (2, 3, 4, 5, 8, 16)  # where a longer match is of another kind
# How often the next token has followed the match before, by length (rows: 1, 2, 3, 4, 5 to 7, 8 to
# 15, longer) and by whether one token followed it once, always the same, or several did. Counted
# over texts of SmolLM2-135M and Qwen2.5-Coder-0.5B, which hardly differ.
_PRIOR = (
    (0.31, 0.47, 0.34),
    (0.51, 0.60, 0.42),
    (0.68, 0.80, 0.46),
    (0.70, 0.80, 0.48),
    (0.78, 0.88, 0.60),
    (0.87, 0.90, 0.60),
    (0.96, 0.97, 0.70),
)
_PRIOR_WEIGHT = 24.0
_MATCHES = 3  # how many matches, from the longest on, have a say in what follows
_WIDTH = 4  # tokens that follow one match
_MOST_FOLLOWERS = 48  # a match that more tokens have followed says too little
_CHECKED = 32  # tokens compared to see whether a text goes on as it was known
# What is known of the texts before the present one is given up when the index grows beyond this.
_MOST_TOKENS = 65_536


class LookupSource:
    """Candidates from earlier places of this text and of those before it."""

    name = NAME

    def __init__(self) -> None:
        self._index = SuffixIndex()
        self._text: list[int] = []
        self._session: weakref.ref[Session] | None = None
        self._follows = Calibration([p for row in _PRIOR for p in row], _PRIOR_WEIGHT)

    def observe(self, session: Session, pending: Sequence[int]) -> None:
        known, length = len(self._text), len(session) + len(pending)
        same = self._session is not None and self._session() is session and known <= length
        checked = max(0, known - _CHECKED)
        if same and _part(session, pending, checked, known) == self._text[checked:]:
            self.extend(_part(session, pending, known, length))
        else:
            self._session = weakref.ref(session)
            self.restart(_part(session, pending, 0, length))

    def restart(self, tokens: Sequence[int]) -> None:
        """Takes in another text; the ones before it stay known, unless they are too many."""
        if self._index.tokens + len(tokens) > _MOST_TOKENS:
            self._index = SuffixIndex()
        self._index.begin()
        for token in tokens:
            self._index.append(token)
        self._text = list(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Takes in how the text goes on, and learns from which matches it did as before."""
        index = self._index
        for token in tokens:
            for _, state in zip(range(_MATCHES), index.matches(), strict=False):
                followed = token in index.followers(state)
                self._follows.observe(self._kind(state, index.length(state)), followed)
                if followed:
                    break
            index.append(token)
        self._text += tokens

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        end = next(self._index.matches(), ROOT)
        root = end, self._index.length(end)
        return best_first(root, self._successors, limit, source=NAME, least=least, chain=chain)

    def learn(self, session: Session, round: Round) -> None:
        """What there is to learn is in the text."""

    def _kind(self, state: int, length: int) -> int:
        """The calibration's bin for a match of this length."""
        followers = self._index.followers(state)
        if len(followers) > 1:
            seen = 2
        else:
            seen = int(self._index.count(next(iter(followers.values()))) > 1)
        return 3 * bisect_right(_LENGTHS, length) + seen

    def _successors(
        self, match: tuple[int, int], least: float
    ) -> list[tuple[int, float, tuple[int, int]]]:
        """What may follow a state, of whose strings that of the given length is matched."""
        index = self._index
        found: dict[int, tuple[float, tuple[int, int]]] = {}
        left = 1.0  # probability of what did not follow the longer matches
        for n, state in enumerate(index.matches(match[0])):
            if n == _MATCHES or left < least:
                break
            length = match[1] if state == match[0] else index.length(state)
            followers = index.followers(state)
            if len(followers) > _MOST_FOLLOWERS:
                break
            follows = self._follows.probability(self._kind(state, length))
            counts = {token: index.count(after) for token, after in followers.items()}
            scale = left * follows / sum(counts.values())
            likeliest = (
                counts if len(counts) <= _WIDTH else nlargest(_WIDTH, counts, counts.__getitem__)
            )
            for token in likeliest:
                probability = scale * counts[token]
                if probability >= least and token not in found:
                    found[token] = probability, (followers[token], length + 1)
            left *= 1 - follows
        ranked = sorted(found.items(), key=lambda item: -item[1][0])
        return [(token, probability, after) for token, (probability, after) in ranked]


def _part(session: Session, pending: Sequence[int], begin: int, end: int) -> list[int]:
    """The tokens from position ``begin`` to before ``end`` of the text."""
    held = len(session)
    return [
        *session.tokens[begin:end],
        *pending[max(0, begin - held) : max(0, end - held)],
    ]
