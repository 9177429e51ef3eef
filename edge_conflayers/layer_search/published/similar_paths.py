"""Paths through a model's layers that stay most similar to the full model, by dynamic programming.

CLaSp (arXiv 2505.24196) and KnapSpec (arXiv 2602.20217) share this: part by part, each path so far
either runs the part or skips it. Of the paths that have saved as much, the one whose hidden states
have the highest cosine similarity to the full model's is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import LayerMask

States = npt.NDArray[np.float32]
Kind = Literal["layer", "attention", "mlp"]
RunLayer = Callable[[States, int, Kind], States]
"""Runs states [paths, tokens, width] through one part of a layer, each path by itself."""


@dataclass(frozen=True)
class Part:
    """A layer or sub-layer that can be skipped, and what skipping it saves."""

    layer: int
    kind: Kind
    saves: float = 1.0


@dataclass(frozen=True)
class Path:
    """One way through the model.

    Attributes:
        skipped: indices of parts, ascending.
        saved: what they save together.
        states: the hidden states that it has come to, float32 [tokens, width].
        similarity: their cosine similarity to the full model's, mean over tokens.
    """

    skipped: tuple[int, ...]
    saved: float
    states: States
    similarity: float = 1.0

    def mask(self, parts: Sequence[Part]) -> LayerMask:
        """The path's skip set."""
        chosen = [parts[i] for i in self.skipped]
        return LayerMask(
            attention=frozenset(part.layer for part in chosen if part.kind != "mlp"),
            mlp=frozenset(part.layer for part in chosen if part.kind != "attention"),
        )


def best_paths(
    start: States,
    parts: Sequence[Part],
    run_layer: RunLayer,
    *,
    most: float,
    least: float = 0.0,
    unit: float = 1.0,
    threshold: float = -1.0,
) -> list[Path]:
    """The best path for each amount saved.

    Args:
        start: float32 [tokens, width], what enters the first part.
        parts: in the order in which the model runs them.
        run_layer: runs states through one part.
        most: a path may save at most this.
        least: a path must save at least this in the end.
        unit: of paths that save as many whole units, one is kept.
        threshold: paths less similar than this are pruned.

    Returns:
        The full model's path, then the others by ascending savings.
    """
    left = sum(part.saves for part in parts)
    slack = 1e-9 * max(left, 1.0)
    full = Path((), 0.0, np.asarray(start, dtype=np.float32))
    paths: list[Path] = []
    for index, part in enumerate(parts):
        left -= part.saves
        moved = run_layer(np.stack([path.states for path in (full, *paths)]), part.layer, part.kind)
        candidates = [
            replace(path, states=states) for path, states in zip(paths, moved[1:], strict=True)
        ]
        for path in (full, *paths):
            saved = path.saved + part.saves
            candidates.append(Path((*path.skipped, index), saved, path.states))
        full = replace(full, states=moved[0])
        best: dict[int, Path] = {}
        for path in candidates:
            if path.saved > most + slack or path.saved + left < least - slack:
                continue
            path = replace(path, similarity=similarity(path.states, full.states))
            bucket = math.floor((path.saved + slack) / unit)
            if path.similarity >= threshold and (
                bucket not in best or path.similarity > best[bucket].similarity
            ):
                best[bucket] = path
        paths = [best[bucket] for bucket in sorted(best)]
    return [full, *paths]


def similarity(one: States, other: States) -> float:
    """Cosine similarity, mean over tokens, of states float [tokens, width] each."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.mean((a * b).sum(axis=-1) / np.maximum(lengths, 1e-30)))
