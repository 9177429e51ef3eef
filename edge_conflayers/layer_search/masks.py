"""Masks in a saved state."""

from __future__ import annotations

from edge_conflayers.engine.session import LayerMask
from edge_conflayers.profiles.saved_state import Count, SavedState, check_below, check_same


class SavedMask(SavedState):
    """The layers that a mask drops, ascending."""

    attention: list[Count]
    mlp: list[Count]

    @classmethod
    def of(cls, mask: LayerMask) -> SavedMask:
        """What to save of a mask."""
        return cls(sorted(mask.attention), sorted(mask.mlp))

    def mask(self, n_layer: int) -> LayerMask:
        """The mask, for a model of n_layer layers.

        Raises:
            UnusableState: the model has no such layers.
        """
        check_below("layer", (*self.attention, *self.mlp), n_layer)
        return LayerMask(attention=frozenset(self.attention), mlp=frozenset(self.mlp))


class SearchState(SavedState):
    """What the saved states of the published searches begin with."""

    kind: str
    n_layer: int

    def check(self, kind: str, n_layer: int) -> None:
        """Checks that it is a state of this kind of search, for a model of n_layer layers.

        Raises:
            UnusableState: it is not.
        """
        check_same("method", self.kind, kind)
        check_same("n_layer", self.n_layer, n_layer)
