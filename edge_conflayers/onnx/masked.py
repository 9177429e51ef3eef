"""Steps of an exported model under masks, beside the text: drafts, replays, probes.

What they write over the text's own keys and values is put back; what they write behind the text,
the next step overwrites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session.mask import NO_MASK, LayerMask
from edge_conflayers.engine.session.results import MOST_REPLAYED, Confidences
from edge_conflayers.engine.session.text_session import TextSession
from edge_conflayers.onnx import rows
from edge_conflayers.onnx.steps import Steps

_PROBED = 4  # last tokens of a window whose confidences are averaged; not tuned


@dataclass(frozen=True)
class Stop:
    """Where a draft ends; as the arguments of ``TextSession.draft``."""

    limit: int
    probability: float
    path: float = 0.0
    least_path: float = 0.0
    acceptance: Sequence[float] | None = None

    def chance(self, probability: float) -> float:
        """The chance that a token of this probability is accepted."""
        if self.acceptance is None:
            return probability
        bins = len(self.acceptance)
        return self.acceptance[min(int(probability * bins), bins - 1)]


@dataclass(frozen=True)
class Drafted:
    """A draft, and how many tokens were read for it, the pending ones first."""

    draft: Draft
    read: int


@contextmanager
def _kept(steps: Steps, session: TextSession, mask: LayerMask, begin: int) -> Iterator[None]:
    """Runs under a mask; leaves the text's positions from ``begin`` on, and the mask, as they
    were."""
    saved = steps.cache.saved(begin, len(session))
    steps.set_mask(mask)
    try:
        yield
    finally:
        steps.set_mask(session.mask)
        steps.cache.restore(saved, begin)


def draft(
    steps: Steps,
    session: TextSession,
    mask: LayerMask,
    pending: Sequence[int],
    stop: Stop,
    runners_up: int,
    *,
    keep: bool = False,
) -> Drafted:
    """Drafts greedily; see ``TextSession.draft``.

    Args:
        keep: leave in the cache what was read.
    """
    chain: list[int] = []
    probabilities: list[float] = []
    leaves: list[tuple[int, float, int]] = []  # token, probability, parent
    path = 1.0
    reading, begin = list(pending), len(session)

    def go_on() -> bool:
        """Drafts one more token; whether another may follow."""
        nonlocal reading, begin, path
        (row,) = steps.run(reading, begin, 1)
        begin += len(reading)
        tokens, chances = rows.top_k(row, 1 + runners_up)
        path *= stop.chance(chances[0])
        if path < stop.least_path and chain:
            return False
        leaves.extend((t, p, len(chain) - 1) for t, p in zip(tokens[1:], chances[1:], strict=True))
        chain.append(tokens[0])
        probabilities.append(chances[0])
        reading = [tokens[0]]
        return not (
            path < stop.path
            or chances[0] < stop.probability
            or len(chain) == stop.limit
            or session.model.ends_text(tokens[0])
        )

    if keep:
        while go_on():
            pass
    else:
        with _kept(steps, session, mask, begin):
            while go_on():
                pass
    read = begin - len(session)
    if not leaves:
        return Drafted(Draft(tuple(chain), tuple(probabilities)), read)
    parents = (*range(-1, len(chain) - 1), *(parent for _, _, parent in leaves))
    return Drafted(
        Draft(
            (*chain, *(token for token, _, _ in leaves)),
            (*probabilities, *(probability for _, probability, _ in leaves)),
            parents,
        ),
        read,
    )


def replay(
    steps: Steps,
    session: TextSession,
    mask: LayerMask,
    begin: int,
    end: int,
    stretch: int | None,
) -> list[tuple[int, float]]:
    """Predicts positions of the text; see ``TextSession.replay``."""
    size = min(stretch or MOST_REPLAYED, MOST_REPLAYED, session.max_outputs)
    predictions: list[tuple[int, float]] = []
    with _kept(steps, session, mask, begin - 1):
        full = steps.cache.saved(begin - 1, end - 1) if stretch is not None else None
        for first in range(begin - 1, end - 1, size):
            if full is not None and first >= begin:
                steps.cache.restore(full, begin - 1)
            part = session.tokens[first : min(first + size, end - 1)]
            predictions += map(rows.best, steps.run(part, first, len(part)))
    return predictions


def probe(steps: Steps, session: TextSession, window: Sequence[int]) -> Confidences:
    """Confidences of sub-layers by exits: the graph shows no hidden states, so that a sub-layer's
    is that of the next token by the model's own norm and head right after it, 1 - H / log(n_vocab)
    with the entropy H in nats, mean over the window's last tokens. ConfLayers (arXiv 2604.14612)
    takes the entropy of the sub-layer's output instead.

    Args:
        window: read as a text of its own, from position 0 on.

    Returns:
        As ``TextSession.probe``.
    """
    n_layer = session.model.n_layer
    layers = frozenset(range(n_layer))
    begin = max(0, len(window) - min(_PROBED, session.max_outputs))
    last = list(window[begin:])
    attention, mlp = (np.empty(n_layer, dtype=np.float32) for _ in range(2))
    with _kept(steps, session, NO_MASK, 0):
        if begin:
            steps.run(window[:begin], 0, 1)
        for layer in range(n_layer):
            later = frozenset(range(layer + 1, n_layer))
            for found, before in ((attention, layers - frozenset(range(layer))), (mlp, later)):
                steps.set_mask(LayerMask(attention=later, mlp=before))
                found[layer] = _confidence(steps.run(last, begin, len(last)))
    return attention, mlp


def _confidence(logits: npt.NDArray[np.float32]) -> float:
    """1 - H / log(n_vocab), mean over rows of logits, float32 [tokens, n_vocab]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=1)
    entropies = np.log(sums) - (powers * shifted).sum(axis=1) / sums
    return float(np.mean(1.0 - entropies / np.log(logits.shape[1])))
