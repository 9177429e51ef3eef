"""Chooses the block of layers to bridge: by predicted speed, of drafts that were really made.

Blocks are taught one after the other, from the one that was best elsewhere to its neighbours, and
judged by replays along texts that they were not taught with. So a short time is enough for one
block, and more time makes it a better one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_conflayers.bridges.bridge import Bridge, Bridges
from edge_conflayers.bridges.replays import Text, replay_drafts
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.engine.session.bridges import set_bridges
from edge_conflayers.layer_search.objective import Costs, Prediction, Record, best_prediction

Block = tuple[int, int]
"""A block's first layer, and the first one after it."""

_REPLAYED = 64  # positions of each text; not tuned


@dataclass(frozen=True)
class BridgedCosts:
    """Costs of steps over bridges.

    Attributes:
        costs: those without.
        map: what one bridge adds to a draft step, in full one-token steps.
    """

    costs: Costs
    map: float

    def c(self, mask: LayerMask) -> float:
        """c(S) under a mask whose layers are one bridged block."""
        return self.costs.c(mask) + self.map

    def v(self, n: int) -> float:
        """V(n)."""
        return self.costs.v(n)


@dataclass(frozen=True)
class Judged:
    """A bridge that was judged.

    Attributes:
        bridge: the map.
        prediction: what is predicted of drafting over it.
        right: share of the replayed tokens that were the text's.
    """

    bridge: Bridge
    prediction: Prediction
    right: float


def first_block(n_layer: int) -> Block:
    """The block to try first. Of 24 layers, layers 2 to 15 are predicted to be fastest (0.5B)."""
    begin = min(2, max(1, n_layer - 3))
    return begin, max(begin + 1, min(n_layer - 1, begin + round(14 / 24 * n_layer)))


def blocks_to_teach(n_layer: int, known: Block | None = None, *, seed: int = 0) -> list[Block]:
    """Blocks to teach, in this order, as far as there is time.

    Args:
        known: the best of an earlier search, whose neighbours are tried.
        seed: of the neighbours' order.
    """
    centre = known or first_block(n_layer)
    near = [each for each in _around(centre) if 1 <= each[0] < each[1] - 1 < n_layer - 1]
    random.Random(seed).shuffle(near)
    return near if known is not None else [centre, *near]


def _around(block: Block, step: int = 2) -> list[Block]:
    """Blocks that end or begin a little earlier or later."""
    begin, end = block
    return [(begin, end + step), (begin, end - step), (begin - 1, end), (begin + 1, end)]


def judge(bridge: Bridge, texts: Sequence[Text], costs: Costs) -> Judged:
    """Predicts the speed of drafting over a bridge, by replays."""
    block = (bridge.begin, bridge.end)
    mask = LayerMask.layers(range(*block))
    records: list[Record] = []
    for text in texts:
        set_bridges(text.session, [(*block, bridge.weights)])
        try:
            records += replay_drafts(text, mask, [block], _REPLAYED)
        finally:
            set_bridges(text.session, [])
    right = sum(each.matches for each in records) / max(1, len(records))
    return Judged(bridge, best_prediction(records, mask, costs), right)


def fastest(
    bridges: Sequence[Bridge],
    texts: Sequence[Text],
    costs: Costs,
    *,
    deadline: float,
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> Judged:
    """Judges bridges until a time, at least one; returns the one predicted to be fastest.

    Args:
        bridges: at least one, the most promising first.
        texts: others than they were taught with.
        deadline: of ``time.monotonic``.
        on_judged: called after each bridge.
    """
    judged: list[Judged] = []
    for bridge in bridges:
        judged.append(judge(bridge, texts, costs))
        on_judged(judged[-1])
        if time.monotonic() > deadline:
            break
    return max(judged, key=lambda each: each.prediction.speed)


def bridges_of(judged: Judged) -> Bridges:
    """What to keep of it."""
    return Bridges((judged.bridge,), judged.prediction)
