"""What a source of candidate tokens offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import TextSession


class CandidateSource(Protocol):
    """Proposes tokens from what it has seen, without a step of any model.

    Before each draft: ``observe``, then ``look_ahead`` and the candidates, if they are wanted.
    After each round: ``learn``, whoever drafted it. Rounds may go by without these calls.
    """

    @property
    def name(self) -> str:
        """The ``source`` of its drafted tokens."""
        ...

    @property
    def handle(self) -> Any:
        """The library's ``ecl_source``, which holds its candidates."""
        ...

    @property
    def self_calibrated(self) -> bool:
        """Whether it learns itself how often its candidates come true, place by place, so that
        their probabilities are acceptance rates but for a factor."""
        ...

    @property
    def learns_always(self) -> bool:
        """Whether ``learn`` is to be called after every round, also those that go by."""
        ...

    def observe(self, session: TextSession, pending: Sequence[int]) -> None:
        """Takes in the text up to now: the session's and ``pending`` after it. Usually it goes on
        from the text observed last, but it may be another."""
        ...

    def look_ahead(self) -> float:
        """Works out the candidates, if that takes time of its own.

        Returns:
            The seconds it took that the source weighs itself against what they bring.
        """
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

    def learn(self, session: TextSession, round: Round) -> None:
        """As ``Drafter.learn``."""
        ...
