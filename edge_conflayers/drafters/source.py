"""What a source of candidate tokens offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import Session


class CandidateSource(Protocol):
    """Proposes tokens from what it has seen, without a step of any model.

    Before each draft ``observe``, then ``candidates`` if wanted; after each round ``learn``,
    whoever drafted it. Where time is short, rounds may go by without these calls.
    """

    @property
    def name(self) -> str:
        """The ``source`` of its drafted tokens."""
        ...

    @property
    def weighed_seconds(self) -> float:
        """Of its time in this round, what it has weighed itself against what it brings."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether it learns itself how often its candidates come true, place by place, so that
        their probabilities are chances of acceptance but for a factor."""
        ...

    @property
    def learns_always(self) -> bool:
        """Whether ``learn`` is to be called after every round."""
        ...

    def observe(self, session: Session, pending: Sequence[int]) -> None:
        """Takes in the text up to now: the session's and ``pending`` after it. Usually it goes on
        from the text observed last, but it may be another."""
        ...

    def candidates(self, limit: int, *, least: float = 0.0, chain: bool = False) -> Draft:
        """The likeliest tokens to follow the text, as a tree.

        Args:
            limit: most tokens.
            least: probability under which a token, with all before it, is left out.
            chain: at most one successor for each token.

        Returns:
            A token's likeliest child comes right after it.
        """
        ...

    def learn(self, session: Session, round: Round) -> None:
        """As ``Drafter.learn``."""
        ...


@runtime_checkable
class FollowingSource(CandidateSource, Protocol):
    """Goes on with a text in a microsecond or two, so that it can be asked even where time is too
    short for the rest of a round's decisions."""

    @property
    def handle(self) -> Any:
        """The library's lookup, which can follow the text without Python."""
        ...

    def follow(self, token: int) -> float:
        """Takes in one token, which comes right after what was observed or followed last.

        Returns:
            The probability of the likeliest candidate to follow it; 0 if there is none.
        """
        ...

    def followed(self, tokens: Sequence[int]) -> None:
        """Hears of tokens that the library's lookup has taken in."""
        ...
