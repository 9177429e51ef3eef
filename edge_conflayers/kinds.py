"""Kinds of prompts, told apart by their text, and the skip sets that were found for each.

Which layers can be dropped depends on what is being written (code, prose, another language), so a
profile holds several sets and a text starts with that of the prompt most like its own.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers.cost import Costs
from edge_conflayers.errors import BadInput
from edge_conflayers.search.objective import Prediction
from edge_conflayers.search.sublayers import mask_from_json, mask_to_json
from edge_conflayers.session import LayerMask

Signature = npt.NDArray[np.float32]
"""Of a text: float32 [SIGNATURE_SIZE], of length 1."""

_WORDS = 192
_TYPICAL_SHAPE = np.array(
    [0.87, 0.18, 0.08, 0.03, 0.05, 0.02, 0.03, 0.03, 0.04, 0.14, 0.05, 0.3], dtype=np.float32
)  # of English prose; a text's own is counted from here, as all texts are far from 0
SIGNATURE_SIZE = _WORDS + len(_TYPICAL_SHAPE)
SAME_KIND = 0.6
"""Cosine from which two signatures count as one kind."""
MOST_KINDS = 32
_TOKENS = re.compile(r"[^\W\d_]+|\d|[^\w\s]|\n|_")
_LONGEST = 20_000  # characters that are looked at, half from the start and half from the end


def signature(text: str) -> Signature:
    """What kind of prompt a text is: hashed words and signs, and shares of kinds of characters,
    weighted alike. Similar texts have a high cosine. No model is run."""
    if len(text) > _LONGEST:
        text = text[: _LONGEST // 2] + text[-_LONGEST // 2 :]
    words = np.zeros(_WORDS, dtype=np.float32)
    for token in _TOKENS.findall(text):
        words[zlib.crc32(token.lower().encode("utf-8", "replace")) % _WORDS] += 1.0
    return _unit(np.concatenate([_unit(np.sqrt(words)), _unit(_shape(text) - _TYPICAL_SHAPE)]))


def similarity(one: Signature, other: Signature) -> float:
    """Cosine, from -1 to 1."""
    return float(one @ other)


def mean_signature(signatures: Iterable[Signature]) -> Signature:
    """Of several texts of one kind; at least one."""
    return _unit(np.sum(list(signatures), axis=0))


@dataclass(frozen=True)
class SkipSet:
    """What was found for one kind of prompts.

    Attributes:
        kind: its name.
        signature: the mean of its prompts'.
        mask: what to drop.
        prediction: how fast drafting with it is, and the stop rule it takes.
        c: a one-token step under the mask, over a full one.
    """

    kind: str
    signature: Signature
    mask: LayerMask
    prediction: Prediction
    c: float


class SkipSets:
    """The skip sets of one model, by kind of prompts; the last kept come last.

    Args:
        n_layer: the model's layers.
        sets: at most one a kind.
        costs: what was measured for predictions; None if nothing was.
    """

    def __init__(
        self, n_layer: int, sets: Iterable[SkipSet] = (), costs: Costs | None = None
    ) -> None:
        self.n_layer = n_layer
        self.costs = costs
        self._sets = {found.kind: found for found in sets}

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[SkipSet]:
        return iter(self._sets.values())

    def nearest(self, signature: Signature) -> SkipSet | None:
        """The set of the prompts most like this one; None if there are no sets."""
        return max(self, key=lambda found: similarity(found.signature, signature), default=None)

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
            "sets": [
                {
                    "kind": found.kind,
                    "signature": " ".join(f"{value:.3g}" for value in found.signature),
                    "mask": mask_to_json(found.mask),
                    "prediction": asdict(found.prediction),
                    "c": found.c,
                }
                for found in self
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], n_layer: int) -> SkipSets:
        """What ``to_json`` gave, for a model of n_layer layers.

        Raises:
            BadInput: anything else.
        """
        try:
            if data["n_layer"] != n_layer:
                raise ValueError(f"they are for {data['n_layer']!r} layers, not {n_layer}")
            costs = data["costs"]
            return cls(
                n_layer,
                [_set_from_json(found, n_layer) for found in data["sets"]],
                None if costs is None else Costs.from_json(costs),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadInput(
                f"the saved skip sets cannot be used ({reason}): start anew with --fresh"
            ) from error


def _set_from_json(data: Mapping[str, Any], n_layer: int) -> SkipSet:
    values = np.array([float(value) for value in data["signature"].split()], dtype=np.float32)
    prediction = Prediction(**data["prediction"])
    numbers = [*values, *asdict(prediction).values(), data["c"]]
    if len(values) != SIGNATURE_SIZE or not np.isfinite(numbers).all():
        raise ValueError("a signature or a prediction is not one")
    drafts = type(prediction.max_draft) is int and prediction.max_draft >= 1
    if not drafts or not isinstance(data["kind"], str):
        raise ValueError(f"a set of kind {data['kind']!r} drafts {prediction.max_draft} tokens")
    mask = mask_from_json(data["mask"], n_layer)
    return SkipSet(data["kind"], _unit(values), mask, prediction, float(data["c"]))


def _shape(text: str) -> Signature:
    n = max(1, len(text))

    def share(pattern: str) -> float:
        return math.sqrt(len(re.findall(pattern, text)) / n)

    return np.array(
        [
            share(r"[a-z]"),
            share(r"[A-Z]"),
            share(r"\d"),
            share(r"[^\x00-\x7f]"),
            share(r"\n"),
            share(r"(?m)^[ \t]+"),
            share(r"[(){}\[\]]"),
            share(r"[=<>+*/%&|^~-]"),
            share(r"[_;:#@\\`$]"),
            share(r"[.,!?]"),
            share(r"[\"']"),
            math.log1p(n) / 20,
        ],
        dtype=np.float32,
    )


def _unit(values: npt.NDArray[Any]) -> Signature:
    length = float(np.linalg.norm(values))
    scaled: Signature = (values / length if length > 0 else values).astype(np.float32)
    return scaled
