"""What a method is, and what most methods have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_conflayers.decoding.drafter import Drafter
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session import Session
from edge_conflayers.next_state.head import NextStateHead


class Method(Protocol):
    """A drafter together with what it has learned."""

    @property
    def drafter(self) -> Drafter | None: ...

    def prepare(self, session: Session) -> None:
        """Called before ``drafter`` is asked for. Measures what it needs to know of the machine, if
        it does not know it yet; clears the session."""
        ...

    def settings(self) -> dict[str, Any]:
        """What distinguishes its profile from others': JSON-able."""
        ...

    def state(self) -> dict[str, Any] | None:
        """What it has learned so far, to be kept in a profile: JSON-able; None for nothing."""
        ...

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave.

        Raises:
            BadInput: not a state of this method and model.
        """
        ...

    def close(self) -> None:
        """Frees what it has opened; the method is not used afterwards."""
        ...


@dataclass(frozen=True)
class MethodOptions:
    """What a user can give to a method besides the model.

    Attributes:
        draft_model: drafts in the methods named after it; stays open as long as they do.
        next_state: what `tune` has taught; drafts in ``auto``.
    """

    draft_model: Model | None = None
    next_state: NextStateHead | None = None


class Simple:
    """A method that measures nothing beforehand and opens nothing."""

    def prepare(self, session: Session) -> None:
        """There is nothing to measure."""

    def close(self) -> None:
        pass


class Forgetful(Simple):
    """A simple method that learns nothing."""

    def settings(self) -> dict[str, Any]:
        return {}

    def state(self) -> None:
        return None

    def resume(self, state: Mapping[str, Any]) -> None:
        pass
