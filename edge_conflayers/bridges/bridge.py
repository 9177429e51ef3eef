"""Bridges over dropped layers: what they are, and their file.

A draft runs layers ``[0, begin)``, a map in the place of layers ``[begin, end)``, and the layers
from ``end`` on. The map takes what enters layer ``begin`` and, since verification has computed them
anyway, what entered layers ``begin`` and ``end`` at the token before (a draft's own for drafted
tokens), each over its root mean square::

    x_end = x + rms(x) * (W [x / rms(x); p_begin / rms(p_begin); p_end / rms(p_end); 1])

``regression`` says how ``W`` is taught.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import LayerMask
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.profiles.saved_arrays import from_8_bits, to_8_bits
from edge_conflayers.profiles.saved_state import Count, Positive, SavedState, Share, check_below

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bridge:
    """A map in the place of a block of layers.

    Attributes:
        begin, end: the block is layers begin to end - 1.
        weights: float32 [n_embd, 3 * n_embd + 1], W.
    """

    begin: int
    end: int
    weights: Floats


class _Saved(SavedState):
    """What a file says beside the weights."""

    speed: Positive
    stop_probability: Share
    max_draft: int
    acceptance: Share
    tokens_per_round: Positive
    vocabulary_size: Count
    written: dict[int, Annotated[int, msgspec.Meta(ge=1)]]


@dataclass(frozen=True)
class Bridges:
    """The bridges of a draft, in the order of the layers; none touches another.

    Attributes:
        bridges: at least one.
        prediction: the speed predicted with them, and the stop rule that it is predicted for.
        vocabulary_size: of the draft vocabulary that it is predicted with; 0 for all tokens.
        written: how often each token occurred in the texts that they were taught with.
    """

    bridges: tuple[Bridge, ...]
    prediction: Prediction
    vocabulary_size: int = 0
    written: Counter[int] = field(default_factory=Counter)

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Begin and end of each."""
        return [(each.begin, each.end) for each in self.bridges]

    @property
    def mask(self) -> LayerMask:
        """The layers that they replace."""
        return LayerMask.layers(i for each in self.bridges for i in range(each.begin, each.end))

    def to_bytes(self) -> bytes:
        """numpy's npz format, weights in 8 bits; ``from_bytes`` reads it."""
        saved = _Saved(
            **asdict(self.prediction),
            vocabulary_size=self.vocabulary_size,
            written=dict(self.written),
        )
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "blocks": np.array(self.blocks, dtype=np.int32),
            "prediction": np.frombuffer(msgspec.json.encode(saved), dtype=np.uint8),
        }
        for i, each in enumerate(self.bridges):
            arrays[f"weights{i}"], arrays[f"scales{i}"] = to_8_bits(each.weights[:, :-1])
            arrays[f"bias{i}"] = each.weights[:, -1].astype(np.float32)
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, n_embd: int, n_layer: int, n_vocab: int) -> Bridges:
        """Restores what ``to_bytes`` returned, for a model of these sizes.

        Raises:
            BadInput: it is damaged, or of another model.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                blocks = [(int(begin), int(end)) for begin, end in arrays["blocks"]]
                saved = _Saved.from_json(msgspec.json.decode(arrays["prediction"].tobytes()))
                weights = []
                for i in range(len(blocks)):
                    matrix = from_8_bits(arrays[f"weights{i}"], arrays[f"scales{i}"])
                    bias = arrays[f"bias{i}"].astype(np.float32)
                    weights.append(np.column_stack([matrix, bias]))
        except Exception as error:  # zipfile and numpy have many names for what is damaged
            raise BadInput(f"these are no bridges ({error}); run `tune` anew") from None
        ends = [-1, *(end for _, end in blocks)]
        if (
            not blocks
            or saved.max_draft < 1
            or not all(end < n_layer for end in ends)
            or not all(ends[i] < begin < end for i, (begin, end) in enumerate(blocks))
            or not all(each.shape == (n_embd, 3 * n_embd + 1) for each in weights)
            or not all(np.isfinite(each).all() for each in weights)
        ):
            raise BadInput("these are the bridges of another model; run `tune` anew")
        check_below("token", saved.written, n_vocab)
        prediction = Prediction(
            **{each.name: getattr(saved, each.name) for each in fields(Prediction)}
        )
        bridges = tuple(Bridge(*block, each) for block, each in zip(blocks, weights, strict=True))
        return cls(bridges, prediction, saved.vocabulary_size, Counter(saved.written))
