"""Finds the block of layers to bridge: by predicted speed, of drafts that were really made.

It starts from the block that was best elsewhere and goes on with its neighbours, each fitted in
closed form and judged by replays along texts that it was not fitted to. So any time is enough for
one block, and more time makes it a better one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_conflayers.bridges.bridge import Bridge, Bridges
from edge_conflayers.bridges.regression import BridgeRegression
from edge_conflayers.bridges.replays import Text, replay_drafts
from edge_conflayers.bridges.streams import Streams
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.engine.session.bridges import set_bridges
from edge_conflayers.layer_search.objective import Costs, Prediction, Record, best_prediction

Block = tuple[int, int]

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
    """A block that was fitted and judged.

    Attributes:
        bridge: the fitted map.
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


def boundaries(n_layer: int) -> list[int]:
    """The layers at which the search's blocks begin or end, ascending."""
    blocks = {first_block(n_layer), *_around(first_block(n_layer), n_layer, reach=2)}
    return sorted({layer for block in blocks for layer in block})


def _around(block: Block, n_layer: int, reach: int = 1) -> Iterator[Block]:
    """Blocks that end or begin a little earlier or later."""
    step = max(1, n_layer // 14)
    begin, end = block
    for by in range(1, reach + 1):
        near = ((begin, end + step * by), (begin, end - step * by), (begin - by, end))
        for one, other in (*near, (begin + by, end)):
            if 1 <= one < other - 1 and other < n_layer:
                yield one, other


def fit(streams: Sequence[Streams], layers: Sequence[int], block: Block, n_embd: int) -> Bridge:
    """The map of a block, in closed form.

    Args:
        streams: of each text, what entered ``layers``.
        block: begins and ends at some of them.
    """
    begin, end = (layers.index(layer) for layer in block)
    regression = BridgeRegression(n_embd)
    for each in streams:
        regression.add(each[begin].astype("float32"), each[end].astype("float32"))
    return regression.solve(*block)


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


def find_block(
    streams: Sequence[Streams],
    layers: Sequence[int],
    texts: Sequence[Text],
    costs: Costs,
    *,
    deadline: float,
    known: Bridges | None = None,
    on_judged: Callable[[Judged], None] = lambda judged: None,
) -> Judged:
    """Fits and judges blocks until a time, at least one; returns the one predicted to be fastest.

    Args:
        streams: of the texts to fit to: what entered ``layers``.
        layers: ``boundaries``.
        texts: other texts to judge by.
        deadline: of ``time.monotonic``.
        known: an earlier result, judged as well.
        on_judged: called after each block.
    """
    model = texts[0].session.model
    best = judge(known.bridges[0], texts, costs) if known is not None else None
    n_judged = 0
    tried: set[Block] = set()
    waiting = [first_block(model.n_layer)]
    while waiting and (n_judged == 0 or time.monotonic() < deadline):
        block = waiting.pop(0)
        tried.add(block)
        judged = judge(fit(streams, layers, block, model.n_embd), texts, costs)
        n_judged += 1
        on_judged(judged)
        if best is None or judged.prediction.speed > best.prediction.speed:
            best = judged
            near = _around(block, model.n_layer)
            waiting = [each for each in near if set(each) <= {*layers} and each not in tried]
    assert best is not None
    return best


def bridges_of(judged: Judged) -> Bridges:
    """What to keep of it."""
    return Bridges((judged.bridge,), judged.prediction)
