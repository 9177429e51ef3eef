"""The measured search: hill climbing on predicted speed, over sets of sub-layers.

It starts from the sets that the ranking suggests, of several sizes, and from what was found before.
The best of them is then improved by moves: dropping or restoring single sub-layers first, then
swaps, each taken if the predicted speed rises. Moves are tried in the order of their gain when last
tried, as in lazy greedy (Minoux 1978), and untried ones in the order of the ranking. Every set is
judged by a replay over text that is there already, so a candidate costs a few steps and not the
rounds of drafts that fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from edge_conflayers.engine.session import NO_MASK, LayerMask
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import Costs, Prediction, Record, best_prediction
from edge_conflayers.layer_search.sublayers import candidates, mask_of, members

_Set = frozenset[int]
_HISTORY = 4  # recent windows of the best set that its stop rule is chosen by; not tuned
_UNTRIED = 0.01  # expected gain in speed of the most promising untried move; not tuned


@dataclass(frozen=True)
class MeasuredSettings:
    """The search's settings.

    Raises:
        BadInput: a value is out of its range.
    """

    window: int = 64
    """Generated tokens that a candidate is judged over during generation. Not tuned."""
    stretch: int = 8
    """Replayed positions after which the masked model goes on from the full model's keys and
    values. Measured 2026-11-22: in one stretch, predicted tokens a round are up to a third fewer
    than in drafting; in stretches of 8, about as long as drafts, they agree."""
    share: float = 0.05
    """Most wall time that the search takes during generation, over that of drafting and
    verification; infinite for a candidate in every round. Not tuned."""
    sizes: tuple[float, ...] = (0.1, 0.2, 0.3, 0.15, 0.4)
    """Sizes of the first sets, in the order of trial, as shares of the time that dropping all
    candidates would save. Not tuned."""

    def __post_init__(self) -> None:
        if self.window < 1 or self.stretch < 1 or not self.share >= 0:
            raise BadInput(
                f"a search over {self.window} tokens by {self.stretch} in a share of {self.share}"
                " of the time cannot be; give at least 1, 1 and 0"
            )


@dataclass(frozen=True)
class Found:
    """The best set of a search, and what is predicted for it.

    Attributes:
        mask: the skip set.
        prediction: its predicted speed and stop rule.
        c: c(S), a one-token step under the mask, over a full one.
    """

    mask: LayerMask
    prediction: Prediction
    c: float


@dataclass(frozen=True)
class Memory:
    """What a search carries from one text to another of the same kind.

    Attributes:
        gains: (candidate, whether it was dropped or restored, change of the predicted speed), for
            moves of one sub-layer when last tried.
        seeds: how many first sets were tried.
        credit: seconds that the search may still take during generation.
    """

    gains: tuple[tuple[int, bool, float], ...] = ()
    seeds: int = 0
    credit: float = 0.0


class MeasuredSearch:
    """The search itself: it proposes sets, and learns from the records of their replays.

    Call ``set_orders``, then judge what it proposes until it proposes nothing.

    Args:
        n_layer: the model's layers.
        costs: of steps; read anew for each candidate, so they may change.
        start, memory: as for ``begin_text``.
        others: masks to try first.

    Raises:
        BadInput: the model has too few layers.
    """

    def __init__(
        self,
        n_layer: int,
        costs: Costs,
        settings: MeasuredSettings | None = None,
        *,
        start: Found | None = None,
        memory: Memory | None = None,
        others: Iterable[LayerMask] = (),
    ) -> None:
        self.settings = settings or MeasuredSettings()
        self.n_layer = n_layer
        self._costs = costs
        self._n = candidates(n_layer)
        self._orders: list[list[int]] | None = None
        self._ranked: list[_Set] = []  # first sets, by the orders
        self._others = [self._set(mask) for mask in others]
        self._credit = 0.0  # seconds
        self._judged = 0
        self.begin_text(start, memory)

    @property
    def found(self) -> Found | None:
        """The best set so far, whether or not it is faster than plain decoding."""
        return self._found

    @property
    def mask(self) -> LayerMask:
        """The best set so far; none if plain decoding is faster."""
        found = self._found
        return found.mask if found is not None and found.prediction.speed > 1.0 else NO_MASK

    @property
    def finished(self) -> bool:
        """Whether no move improves on the set over the present window."""
        return self._orders is not None and self.propose() is None

    @property
    def orders(self) -> list[list[int]] | None:
        """The orders given to ``set_orders``; None before."""
        return self._orders

    @property
    def judged(self) -> int:
        """Number of sets judged so far."""
        return self._judged

    def memory(self) -> Memory:
        """What to carry to another text of this kind, beside ``found``."""
        self._next_seed()
        gains = ((i, dropped, gain) for (i, dropped), gain in self._gains.items())
        return Memory(tuple(gains), self._seed, self._credit)

    def begin_text(
        self, start: Found | None = None, memory: Memory | None = None, *, credit: float = 0.0
    ) -> None:
        """Starts another text.

        Args:
            start: the set found for its kind or the nearest one, used until a better one is found.
            memory: from a search over texts of the same kind. Without it, ``start`` takes the place
                of the first sets that the ranking suggests.
            credit: seconds that the search may take at least, if there is no memory.
        """
        self._found = start
        self._gains = {} if memory is None else {(i, on): gain for i, on, gain in memory.gains}
        self._seed = 0 if memory is None else memory.seeds
        self._skips_ranked_seeds = memory is None and start is not None
        self._credit = max(self._credit, credit if memory is None else memory.credit)
        self._history: list[Sequence[Record]] = []
        self.begin_window()

    def begin_window(self) -> None:
        """Judges sets over other text from now on, the set in use first of all."""
        self._level: float | None = None  # the speed of the set in use over this window
        self._tried: set[_Set] = set()
        self._moves: list[_Set] | None = None

    def savings(self) -> list[float]:
        """What dropping each candidate saves, in full one-token steps."""
        nothing = self._costs.c(NO_MASK)
        return [nothing - self._costs.c(mask_of({i}, self.n_layer)) for i in range(self._n)]

    def set_orders(self, orders: Sequence[Sequence[int]]) -> None:
        """Sets the orders in which candidates are worth dropping.

        Args:
            orders: at least one, the most reliable first. Candidates that are in none of them are
                never dropped.
        """
        self._orders = [list(order) for order in orders]
        savings = self.savings()
        self._ranked = [
            _first(order, share, savings) for share in self.settings.sizes for order in self._orders
        ]

    def propose(self) -> LayerMask | None:
        """The next set to judge, the same one until it is judged. None if there is none left, or if
        no order was set and nothing was found before."""
        if self._found is not None and self._level is None:
            return self._found.mask
        seed = self._next_seed()
        if seed is not None:
            return mask_of(seed, self.n_layer)
        if self._moves is None:
            self._moves = self._ordered_moves()
        while self._moves:
            if self._moves[-1] not in self._tried:
                return mask_of(self._moves[-1], self.n_layer)
            self._moves.pop()
        return None

    def judge(self, mask: LayerMask, records: Sequence[Record]) -> bool:
        """Judges a set by the records of its replay.

        All sets that are judged in one window have records of the same positions.

        Returns:
            Whether it is now the best set.
        """
        chosen = self._set(mask)
        prediction = best_prediction(records, mask, self._costs)
        c = self._costs.c(mask)
        self._tried.add(chosen)
        self._judged += 1
        if self._found is not None and self._level is None and mask == self._found.mask:
            self._level = prediction.speed
            self._history = [*self._history, records][-_HISTORY:]
            pooled = [record for window in self._history for record in window]
            self._found = Found(mask, best_prediction(pooled, mask, self._costs), c)
            return False
        before, level = self._found, self._level
        if before is not None and level is not None:
            self._remember(self._set(before.mask), chosen, prediction.speed - level)
        if level is not None and prediction.speed <= level:
            return False
        self._found = Found(mask, prediction, c)
        self._level = prediction.speed
        self._history = [records]
        self._moves = None
        return True

    def _next_seed(self) -> _Set | None:
        seeds = self._seeds()
        while self._seed < len(seeds) and seeds[self._seed] in self._tried:
            self._seed += 1
        return seeds[self._seed] if self._seed < len(seeds) else None

    def _seeds(self) -> list[_Set]:
        """The first sets to try."""
        return self._others if self._skips_ranked_seeds else self._others + self._ranked

    def _ordered_moves(self) -> list[_Set]:
        """Every set that differs from the best one by one sub-layer or by a swap, the most
        promising last."""
        order = (self._orders or [[]])[0]
        used = sorted({i for each in self._orders or [] for i in each})
        rank = {i: order.index(i) if i in order else len(order) for i in used}
        now = self._set(self._found.mask) if self._found is not None else frozenset()

        def gain(i: int) -> float:
            if i in now:
                untried = -_UNTRIED * (1 - rank.get(i, self._n) / self._n)
                return self._gains.get((i, False), untried)
            return self._gains.get((i, True), _UNTRIED * (1 - rank[i] / self._n))

        outside = [i for i in used if i not in now]
        toggles = sorted((*now, *outside), key=gain)
        swaps = [(gain(i) + gain(j), i, j) for i in now for j in outside]
        return [now ^ {i, j} for _, i, j in sorted(swaps)] + [
            now ^ {i} for i in toggles if now != {i}
        ]

    def _remember(self, now: _Set, tried: _Set, gained: float) -> None:
        """Keeps the gain of a move of one sub-layer, and the loss of taking it back."""
        if len(now ^ tried) == 1:
            (i,) = now ^ tried
            self._gains[i, i in tried] = gained
            if gained > 0:
                self._gains[i, i not in tried] = -gained

    def _set(self, mask: LayerMask) -> _Set:
        return frozenset(int(i) for i in members(mask, self.n_layer).nonzero()[0])


def _first(order: Sequence[int], share: float, savings: Sequence[float]) -> _Set:
    """The first candidates of an order that together save a share of what all of it saves; at least
    one."""
    saved = list(accumulate(savings[i] for i in order))
    enough = sum(each < share * saved[-1] for each in saved) + 1 if saved else 0
    return frozenset(order[:enough])
