"""What a method is: a drafter, and what it learns from use to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_conflayers.bridges.bridge import Bridges
from edge_conflayers.decoding.drafter import Drafter
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import TextSession
from edge_conflayers.exits.taught_exits import TaughtExits
from edge_conflayers.next_state.head import NextStateHead

State = Mapping[str, Any]


class Method(Protocol):
    """A drafter together with what it has learned."""

    @property
    def drafter(self) -> Drafter | None:
        """Who drafts; None for plain decoding."""
        ...

    def prepare(self, session: TextSession) -> None:
        """Called before each text and before ``drafter`` is asked for. Measures what the method
        needs to know of the machine and does not know yet; may clear the session."""
        ...

    def settings(self) -> dict[str, Any]:
        """What distinguishes its profile from others: JSON-able."""
        ...

    def state(self) -> dict[str, Any] | None:
        """What it has learned so far, to be kept in a profile: JSON-able; None for a method that
        learns nothing."""
        ...

    def resume(self, state: State) -> None:
        """Goes on from what ``state`` returned.

        Raises:
            BadInput: not a state of this method and model.
        """
        ...

    def close(self) -> None:
        """Frees what it has opened; the method is not used afterwards."""
        ...


@dataclass(frozen=True)
class MethodOptions:
    """What a method can be given besides the model.

    Attributes:
        draft_model: drafts in the methods named after it; stays open as long as they do.
        next_state: the head that `tune` has taught; drafts in ``auto``.
        exits: those that `tune --exits` has taught; draft in ``dssd``.
        epsilon: the accuracy that ``dssd`` calibrates them for; None for its own choice.
        bridges: what `tune` has taught over dropped layers; draft in ``bridged``.
    """

    draft_model: LanguageModel | None = None
    next_state: NextStateHead | None = None
    exits: TaughtExits | None = None
    epsilon: float | None = None
    bridges: Bridges | None = None


class Stateless:
    """A method that learns nothing.

    Args:
        drafter: None for plain decoding.
        settings: as ``Method.settings`` returns them.
    """

    def __init__(self, drafter: Drafter | None, settings: Mapping[str, Any] | None = None) -> None:
        self.drafter = drafter
        self._settings = dict(settings or {})

    def prepare(self, session: TextSession) -> None:
        """There is nothing to measure."""

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def state(self) -> dict[str, Any] | None:
        return None

    def resume(self, state: State) -> None:
        """There is nothing to go on from."""

    def close(self) -> None:
        close = getattr(self.drafter, "close", None)
        if close is not None:
            close()


class Learner(Protocol):
    """The part of a drafter that learns."""

    def state(self) -> dict[str, Any]: ...


class Resumable(Stateless):
    """A method whose drafter is made from what was learned before.

    Args:
        settings: as ``Method.settings`` returns them.
        make: makes the drafter, and says which part of it learns, from a state of that part or,
            given None, from nothing.
    """

    def __init__(
        self, settings: Mapping[str, Any], make: Callable[[State | None], tuple[Drafter, Learner]]
    ) -> None:
        drafter, self._learner = make(None)
        super().__init__(drafter, settings)
        self._make = make

    def state(self) -> dict[str, Any] | None:
        return self._learner.state()

    def resume(self, state: State) -> None:
        self.drafter, self._learner = self._make(state)
