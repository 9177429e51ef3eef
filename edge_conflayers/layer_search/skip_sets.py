"""The skip sets found for each kind of prompt, as a profile keeps them.

Which layers can be dropped depends on what is being written (code, prose, another language), so a
profile holds several sets, and a text starts with that of the prompt most like its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from typing import Annotated, Any

import msgspec
import numpy as np

from edge_conflayers.costs.model import StepCosts
from edge_conflayers.layer_search.masks import SavedMask
from edge_conflayers.layer_search.measured import Found, Memory
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.layer_search.prompt_kinds import SIGNATURE_SIZE, Signature, similarity
from edge_conflayers.layer_search.sublayers import candidates
from edge_conflayers.profiles.saved_state import (
    Count,
    Number,
    Positive,
    SavedState,
    Share,
    check_below,
    check_same,
)

SKIP_SETS_PROFILE: Mapping[str, Any] = {"what": "skip sets"}
"""The profile's settings; all methods that use skip sets share it."""

MOST_KINDS = 32
"""Kinds that are kept; not tuned."""


@dataclass(frozen=True)
class SkipSet:
    """The skip set found for one kind of prompt.

    Attributes:
        kind: the kind's name.
        signature: the mean signature of its prompts.
        found: the mask, its predicted speed and its stop rule.
        memory: what the search goes on with.
    """

    kind: str
    signature: Signature
    found: Found
    memory: Memory = field(default_factory=Memory)


class SkipSets:
    """The skip sets of one model, by kind of prompts; the last kept come last.

    Args:
        n_layer: the model's layers.
        sets: at most one a kind.
        costs: measured costs of steps; None if not measured.
        orders: in which sub-layers are worth dropping, as ``ranking.orders`` gives them; None if
            not known.
        savings: seconds that a draft vocabulary saves of a draft step, by its size; None if not
            measured.
        others: what methods that share the profile keep in it besides, JSON-able, by name.
    """

    def __init__(
        self,
        n_layer: int,
        sets: Iterable[SkipSet] = (),
        costs: StepCosts | None = None,
        orders: Sequence[Sequence[int]] | None = None,
        savings: Mapping[int, float] | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> None:
        self.n_layer = n_layer
        self.costs = costs
        self.orders = orders
        self.savings = savings
        self.others = dict(others or {})
        self._sets = {each.kind: each for each in sets}

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[SkipSet]:
        return iter(self._sets.values())

    def nearest(self, signature: Signature) -> SkipSet | None:
        """The set of the prompts most like this one; None if there are no sets."""
        return max(self, key=lambda each: similarity(each.signature, signature), default=None)

    def keep(self, found: SkipSet) -> None:
        """Adds a set, or replaces that of its kind. Of more than ``MOST_KINDS`` kinds, the one that
        was kept longest ago is dropped."""
        self._sets.pop(found.kind, None)
        self._sets[found.kind] = found
        while len(self._sets) > MOST_KINDS:
            del self._sets[next(iter(self._sets))]

    def unused_name(self) -> str:
        """A name for a kind that nobody has named."""
        return next(name for i in count(1) if (name := f"seen {i}") not in self._sets)

    def to_json(self) -> dict[str, Any]:
        """JSON-able, signatures and gains to three digits; ``from_json`` restores it exactly."""
        return _State(
            self.n_layer,
            self.costs,
            None if self.orders is None else [list(each) for each in self.orders],
            None if self.savings is None else dict(self.savings),
            {each.kind: _saved(each) for each in self},
            self.others,
        ).to_json()

    @classmethod
    def from_json(cls, data: Mapping[str, Any], n_layer: int) -> SkipSets:
        """Restores what ``to_json`` returned, for a model of n_layer layers.

        Raises:
            BadInput: anything else.
        """
        saved = _State.from_json(data)
        check_same("n_layer", saved.n_layer, n_layer)
        for order in saved.orders or ():
            check_below("sub-layer", order, candidates(n_layer))
        sets = [_restored(kind, each, n_layer) for kind, each in saved.sets.items()]
        return cls(n_layer, sets, saved.costs, saved.orders, saved.savings, saved.others)


class _SavedSet(SavedState):
    signature: Annotated[
        list[Number], msgspec.Meta(min_length=SIGNATURE_SIZE, max_length=SIGNATURE_SIZE)
    ]
    mask: SavedMask
    acceptance: Share
    tokens_per_round: Positive
    speed: Positive
    stop_probability: Share
    max_draft: Annotated[int, msgspec.Meta(ge=1)]
    c: Positive
    gains: list[tuple[Count, bool, Number]]
    seeds: Count
    credit: Number


class _State(SavedState):
    n_layer: int
    costs: StepCosts | None
    orders: list[list[Count]] | None
    savings: dict[int, Number] | None
    sets: dict[str, _SavedSet]  # by kind
    others: dict[str, Any]


def _saved(found: SkipSet) -> _SavedSet:
    return _SavedSet(
        signature=[float(f"{value:.3g}") for value in found.signature],
        mask=SavedMask.of(found.found.mask),
        **asdict(found.found.prediction),
        c=found.found.c,
        gains=[(i, dropped, float(f"{gain:.3g}")) for i, dropped, gain in found.memory.gains],
        seeds=found.memory.seeds,
        credit=found.memory.credit,
    )


def _restored(kind: str, saved: _SavedSet, n_layer: int) -> SkipSet:
    check_below("sub-layer", (i for i, _, _ in saved.gains), candidates(n_layer))
    prediction = Prediction(**{each.name: getattr(saved, each.name) for each in fields(Prediction)})
    return SkipSet(
        kind,
        np.array(saved.signature, dtype=np.float32),  # of length 1, but for the third digit
        Found(saved.mask.mask(n_layer), prediction, saved.c),
        Memory(tuple(saved.gains), saved.seeds, saved.credit),
    )


def merge_skip_sets(
    ours: dict[str, Any],
    ours_before: dict[str, Any] | None,
    stored: dict[str, Any] | None,
    stored_before: dict[str, Any] | None,
    *,
    tuned: bool,
) -> dict[str, Any]:
    """What to save where another program may have saved meanwhile: of costs, orders, savings, each
    kind's set and each method's own state, what only one of the two has changed.

    What both have changed is taken from ``stored``, since a text tells less than what `tune` has
    found; but from ``ours`` if ``tuned``, and the method's own state always.

    Args:
        ours, ours_before: states of this process, now and when it last loaded or saved.
        stored, stored_before: states on disk, now and then.
        tuned: whether this process is `tune`.
    """

    def newer(name: str, kind: str | None, ours_first: bool) -> Any:
        now, before, there, there_before = (
            _part(state, name, kind) for state in (ours, ours_before, stored, stored_before)
        )
        if now is None or now == before:
            return there
        return now if there is None or there == there_before or ours_first else there

    def newer_parts(name: str, ours_first: bool) -> dict[str, Any]:
        kinds = dict.fromkeys((*_part(stored, name, None, {}), *_part(ours, name, None, {})))
        found = {kind: newer(name, kind, ours_first) for kind in kinds}
        return {kind: value for kind, value in found.items() if value is not None}

    sets = newer_parts("sets", tuned)
    return {
        "n_layer": ours["n_layer"],
        "costs": newer("costs", None, tuned),
        "orders": newer("orders", None, tuned),
        "savings": newer("savings", None, tuned),
        "sets": dict(list(sets.items())[-MOST_KINDS:]),
        "others": newer_parts("others", True),
    }


def _part(state: Mapping[str, Any] | None, name: str, kind: str | None, default: Any = None) -> Any:
    """A field of a state, or what the field holds of a kind."""
    if state is None or name not in state:
        return default
    return state[name] if kind is None else state[name].get(kind)
