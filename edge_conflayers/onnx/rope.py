"""Rotary position embeddings as tables of cosines and sines, to llama.cpp's bits but for cos()."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_CHUNK = 1 << 14  # positions at a time


@dataclass(frozen=True)
class Rope:
    """The rotation of a layer's queries and keys.

    Attributes:
        dimensions: of a head; all are rotated.
        base: of the frequencies.
        scale: of the positions; 1 / factor of a longer context.
        yarn_context: the context that YaRN scaling starts from; 0 for no YaRN.
        magnitude: of cosines and sines, before YaRN's own.
        factors: what each frequency is divided by (Llama 3); none for 1.
    """

    dimensions: int
    base: float
    scale: float = 1.0
    yarn_context: int = 0
    magnitude: float = 1.0
    factors: tuple[float, ...] = ()

    def table(self, n: int) -> Iterator[tuple[Floats, Floats]]:
        """Cosines and sines of positions 0 to n - 1, in chunks: float32 [chunk, dimensions / 2]."""
        for begin in range(0, n, _CHUNK):
            yield self._rows(np.arange(begin, min(n, begin + _CHUNK), dtype=np.float32))

    def _rows(self, positions: Floats) -> tuple[Floats, Floats]:
        # ggml_rope_cache_init and rope_yarn in llama.cpp's ggml-cpu/ops.cpp, in its float32.
        half = self.dimensions // 2
        ratio = np.float32(np.float32(self.base) ** np.float32(-2.0 / self.dimensions))
        angles = np.full((len(positions), half), ratio, dtype=np.float32)
        angles[:, 0] = positions
        angles = np.asarray(np.multiply.accumulate(angles, axis=1), dtype=np.float32)
        if self.factors:
            angles /= np.array(self.factors, dtype=np.float32)
        scaled = np.float32(self.scale) * angles
        magnitude = np.float32(self.magnitude)
        if self.yarn_context:
            mix = self._extrapolated()
            scaled = scaled * (1 - mix) + angles * mix
            magnitude *= np.float32(1 + 0.1 * math.log(1 / self.scale))
        return np.cos(scaled) * magnitude, np.sin(scaled) * magnitude

    def _extrapolated(self) -> Floats:
        """How far YaRN leaves each frequency as it is: 1 wholly, 0 not at all."""
        # llama.cpp's beta_fast and beta_slow, which no file of these architectures changes
        low = max(0.0, math.floor(self._dimension_of(32.0)))
        high = min(self.dimensions - 1.0, math.ceil(self._dimension_of(1.0)))
        ramp = np.arange(self.dimensions // 2, dtype=np.float32) - np.float32(low)
        ramp /= np.float32(max(0.001, high - low))
        return np.asarray(1 - np.clip(ramp, 0, 1), dtype=np.float32)

    def _dimension_of(self, rotations: float) -> float:
        """The dimension that turns so often over the original context."""
        turns = self.yarn_context / (rotations * 2 * math.pi)
        return self.dimensions * math.log(turns) / (2 * math.log(self.base))


def yarn_magnitude(scale: float) -> float:
    """What llama.cpp multiplies cosines and sines by, before YaRN's own magnitude, which cancels
    it: llama_context's constructor."""
    factor = 1 / scale
    wanted = 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1
    return wanted / (1 + 0.1 * math.log(factor))
