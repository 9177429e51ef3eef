"""Taught exits: what they are, and their file.

An exit after some of the layers is a norm and a linear map: the residual stream there, divided by
its root mean square and scaled feature by feature, is mapped to the last hidden state, and the
model's own LM head says which token may come next. In the paper (DSSD, arXiv 2407.21082) the map
goes to the vocabulary itself; through the LM head an exit takes ``n_embd ** 2`` weights instead of
``n_vocab * n_embd``, and the draft vocabulary can change from text to text.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput
from edge_conflayers.exits.calibration import calibrate
from edge_conflayers.profiles.saved_arrays import count_arrays, counter_of

Floats = npt.NDArray[np.float32]

EXIT_VOCABULARY_SIZE = 8192
"""Tokens of the draft vocabulary that exits choose among; as the default of drafts, not tuned."""


def exit_layers(n_layer: int) -> tuple[int, ...]:
    """The layers after which exits are taught: at a quarter, a half and three quarters of the
    model, as in the paper.

    Raises:
        BadInput: the model has too few layers.
    """
    layers = sorted({round(n_layer * quarter / 4) for quarter in (1, 2, 3)} & {*range(1, n_layer)})
    if not layers:
        raise BadInput(f"a model of {n_layer} layers has no exits; use --method plain")
    return tuple(layers)


@dataclass(frozen=True, eq=False)
class TaughtExits:
    """Exits of a model, and what they said of held-out tokens.

    Attributes:
        layers: layers that run before each exit, ascending.
        norms: float32 [exits, n_embd], factors of the features.
        weights: float32 [exits, n_embd, n_embd].
        written: how often each token occurred in the texts that they were taught with.
        entropies: float32 [exits, tokens], of their distributions at held-out tokens, in nats.
        right: bool [exits, tokens], whether their likeliest token was the full model's.
    """

    layers: tuple[int, ...]
    norms: Floats
    weights: Floats
    written: Counter[int] = field(default_factory=Counter)
    entropies: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    right: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))

    def thresholds(self, epsilon: float) -> tuple[float, ...]:
        """See ``calibrate``."""
        return calibrate(self.entropies, self.right, epsilon)

    def to_bytes(self) -> bytes:
        """numpy's npz format, weights in half precision; ``from_bytes`` reads it."""
        tokens, counts = count_arrays(self.written)
        file = io.BytesIO()
        np.savez(
            file,
            layers=np.array(self.layers, dtype=np.int32),
            norms=self.norms,
            weights=self.weights.astype(np.float16),
            tokens=tokens,
            counts=counts,
            entropies=self.entropies,
            right=self.right,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, n_layer: int, n_embd: int, n_vocab: int) -> TaughtExits:
        """Restores what ``to_bytes`` returned, for a model of these sizes.

        Raises:
            BadInput: it is damaged, or of another model.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                layers = tuple(int(layer) for layer in arrays["layers"])
                norms, weights = (arrays[name].astype(np.float32) for name in ("norms", "weights"))
                written = counter_of(arrays["tokens"], arrays["counts"], n_vocab)
                entropies = arrays["entropies"].astype(np.float32)
                right = arrays["right"].astype(bool)
        except Exception as error:  # zipfile and numpy have many names for what is damaged
            raise BadInput(
                f"these are no taught exits ({error}); run `tune --exits` anew"
            ) from None
        n = len(layers)
        if (
            layers != tuple(sorted({*layers} & {*range(1, n_layer)}))
            or n == 0
            or norms.shape != (n, n_embd)
            or weights.shape != (n, n_embd, n_embd)
            or not (np.isfinite(norms).all() and np.isfinite(weights).all())
            or written is None
            or entropies.ndim != 2
            or entropies.shape != right.shape
            or len(entropies) != n
            or not (entropies >= 0).all()
        ):
            raise BadInput("these are the taught exits of another model; run `tune --exits` anew")
        return cls(layers, norms, weights, written, entropies, right)
