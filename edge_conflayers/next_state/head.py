"""The next-state head: what it is, and its file.

The hidden state ``h`` that the LM head takes says which token ``y`` comes next; once ``y`` is
drawn, the next states are predicted as ``[h'; g'] = W [h; g; e(y)]``, where ``g`` is an inner
layer's state at the same position and ``e(y)`` the token's embedding, and the model's own LM head
says of ``h'`` which tokens may follow. With each of those, ``[h'; g']`` is rolled out further. That
is EAGLE's draft (arXiv 2401.15077) with a matrix in place of its layer; it takes
the drawn token as Hydra's heads do (arXiv 2402.05109) and an inner layer as EAGLE-3 does
(arXiv 2503.01840): the last layers give up what is known of later tokens for the next one.
``regression`` and ``cross_entropy`` say how ``W`` is taught.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_conflayers.errors import BadInput
from edge_conflayers.profiles.saved_arrays import (
    count_arrays,
    counter_of,
    from_8_bits,
    to_8_bits,
)

HEAD_VOCABULARY_SIZE = 4096
"""Tokens of the draft vocabulary that the head chooses among. With 8192, asking it takes half as
long again: 0.5B, 26 Spec-Bench prompts, 5 repeats 1.310 over plain, with 4096 1.323; 1.5B, 13
prompts, 2 repeats 1.413 and 1.443 (2026-11-25)."""

Floats = npt.NDArray[np.float32]


def inner_layer(n_layer: int) -> int:
    """The layer whose input the head takes besides the last state. Of layers 12 to 26 of 28, those
    around 22 predict best (1.5B, 133 recorded Spec-Bench texts)."""
    return 4 * n_layer // 5


@dataclass(frozen=True)
class NextStateHead:
    """A taught head.

    Attributes:
        weights: float32 [2 * n_embd, 3 * n_embd], W.
        written: how often each token occurred in the texts that it was taught with.
        chances: for each bin of the head's own probability, lowest first, how many tokens it
            proposed in other texts and how many of them were right, as ``AcceptanceRates`` counts.
    """

    weights: Floats
    written: Counter[int] = field(default_factory=Counter)
    chances: tuple[tuple[float, float], ...] = ()

    def to_bytes(self) -> bytes:
        """numpy's npz format, weights in 8 bits; ``from_bytes`` reads it."""
        numbers, scales = to_8_bits(self.weights)
        tokens, counts = count_arrays(self.written)
        file = io.BytesIO()
        np.savez(
            file,
            weights=numbers,
            scales=scales,
            tokens=tokens,
            counts=counts,
            chances=np.array(self.chances, dtype=np.float64).reshape(-1, 2),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, n_embd: int, n_vocab: int) -> NextStateHead:
        """Restores what ``to_bytes`` returned, for a model of these sizes.

        Raises:
            BadInput: it is damaged, or of another model.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if earlier := "scales" not in arrays:
                    weights = arrays["weights"]
                else:
                    weights = from_8_bits(arrays["weights"], arrays["scales"])
                written = counter_of(arrays["tokens"], arrays["counts"], n_vocab)
                chances = tuple((float(tried), float(right)) for tried, right in arrays["chances"])
        except Exception as error:  # zipfile and numpy have many names for what is damaged
            raise BadInput(f"this is no next-state head ({error}); run `tune` anew") from None
        if earlier:
            raise BadInput("this next-state head is an earlier version's; run `tune` anew")
        if (
            written is None
            or weights.shape != (2 * n_embd, 3 * n_embd)
            or not np.isfinite(weights).all()
            or not all(0 <= right <= tried < math.inf for tried, right in chances)
        ):
            raise BadInput("this is the next-state head of another model; run `tune` anew")
        return cls(weights, written, chances)
