"""The skip sets found for each kind of prompt, as a profile keeps them.

Which layers can be dropped depends on what is being written (code, prose, another language), so a
profile holds several sets, and a text starts with that of the prompt most like its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import numpy as np

from edge_conflayers.costs.model import StepCosts
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.masks import mask_from_json, mask_state
from edge_conflayers.layer_search.measured import Found, Memory
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.layer_search.prompt_kinds import SIGNATURE_SIZE, Signature, similarity, unit
from edge_conflayers.layer_search.sublayers import candidates

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
        """JSON-able; ``from_json`` restores it, signatures to three digits."""
        return {
            "n_layer": self.n_layer,
            "costs": None if self.costs is None else self.costs.to_json(),
            "orders": None if self.orders is None else [_spaced(each) for each in self.orders],
            "sets": [
                {
                    "kind": each.kind,
                    "signature": _spaced(f"{value:.3g}" for value in each.signature),
                    "mask": mask_state(each.found.mask),
                    "prediction": asdict(each.found.prediction),
                    "c": each.found.c,
                    "gains": [_spaced((i, int(on), f"{g:.3g}")) for i, on, g in each.memory.gains],
                    "seeds": each.memory.seeds,
                    "credit": each.memory.credit,
                }
                for each in self
            ],
            "savings": self.savings,
            "others": self.others,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], n_layer: int) -> SkipSets:
        """Restores what ``to_json`` gave, for a model of n_layer layers.

        Raises:
            BadInput: anything else.
        """
        try:
            if data["n_layer"] != n_layer:
                raise ValueError(f"they are for {data['n_layer']!r} layers, not {n_layer}")
            costs, orders, savings = data["costs"], data["orders"], data["savings"]
            return cls(
                n_layer,
                [_set_from_json(each, n_layer) for each in data["sets"]],
                None if costs is None else StepCosts.from_json(costs),
                None if orders is None else [_order(each, n_layer) for each in orders],
                None if savings is None else {int(n): float(s) for n, s in savings.items()},
                dict(data["others"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadInput(
                f"the saved skip sets cannot be used ({reason}): start anew with --fresh"
            ) from error


def _spaced(values: Iterable[Any]) -> str:
    return " ".join(map(str, values))


def _order(spaced: str, n_layer: int) -> list[int]:
    return [_candidate(i, n_layer) for i in spaced.split()]


def _candidate(text: str, n_layer: int) -> int:
    if not 0 <= int(text) < candidates(n_layer):
        raise ValueError(f"{text} is no sub-layer of {n_layer} layers")
    return int(text)


def _set_from_json(data: Mapping[str, Any], n_layer: int) -> SkipSet:
    values = np.array([float(value) for value in data["signature"].split()], dtype=np.float32)
    prediction = Prediction(**data["prediction"])
    gains = []
    for i, on, gain in (each.split() for each in data["gains"]):
        gains.append((_candidate(i, n_layer), on == "1", float(gain)))
    numbers = [*values, *asdict(prediction).values(), data["c"], data["credit"]]
    if len(values) != SIGNATURE_SIZE or not np.isfinite(numbers).all():
        raise ValueError("a signature or a prediction is not one")
    counts = (prediction.max_draft, data["seeds"])
    if any(type(count) is not int or count < 0 for count in counts) or counts[0] < 1:
        raise ValueError(f"{counts} are not a draft's length and a count")
    if not isinstance(data["kind"], str):
        raise ValueError(f"{data['kind']!r} is not a name")
    mask = mask_from_json(data["mask"], n_layer)
    found = Found(mask, prediction, float(data["c"]))
    memory = Memory(tuple(gains), data["seeds"], float(data["credit"]))
    return SkipSet(data["kind"], unit(values), found, memory)
