"""The measured search: sub-layers are dropped for what dropping them does to the objective.

It starts from sets that one look at the model suggests (``ranking``), of several sizes, and from
what was found before. The best of them grows and shrinks by single sub-layers and then by swaps,
each taken if the predicted speed rises. Moves are tried in the order of what they brought when
they were last tried, as in lazy greedy (Minoux 1978), and untried ones in the order of the
ranking. Every set is judged by replaying it over text that is there already, so a candidate costs a
few steps and not the rounds of a draft that fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.session import NO_MASK, LayerMask, Session
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search import ranking
from edge_conflayers.layer_search.masks import mask_state
from edge_conflayers.layer_search.matchness import replay_records
from edge_conflayers.layer_search.objective import Costs, Prediction, Record, best_prediction
from edge_conflayers.layer_search.sublayers import candidates, mask_of, members

_Set = frozenset[int]
_HISTORY = 4  # windows of the best set whose records the stop rule is chosen by
_RENEWAL = 4  # windows of new text after which candidates are judged over new text
_FIRST_COST = 12  # a candidate's time, in verifications, before one was timed
_SAVINGS = 4  # most candidates whose time is saved up
_UNTRIED = 0.01  # gain at which the most promising untried move is expected


@dataclass(frozen=True)
class MeasuredSettings:
    """How far the search looks. Raises BadInput when a value is out of its range."""

    window: int = 64
    """Generated tokens that a candidate is judged over while text is being written."""
    stretch: int = 8
    """Replayed positions after which the masked model goes on from the full model's keys and
    values. In one stretch, predicted tokens a round fall behind those of drafting by up to a third;
    in stretches about as long as drafts they agree."""
    share: float = 0.05
    """Most wall time that the search takes while text is being written, over drafting and
    verification; infinite for a candidate a round."""
    sizes: tuple[float, ...] = (0.1, 0.2, 0.3, 0.15, 0.4)
    """Sizes of the first sets, as shares of the time that all candidates would save, in the order
    of trial."""

    def __post_init__(self) -> None:
        if self.window < 1 or self.stretch < 1 or not self.share >= 0:
            raise BadInput(
                f"a search over {self.window} tokens by {self.stretch} in a share of {self.share}"
                " of the time cannot be; give at least 1, 1 and 0"
            )


@dataclass(frozen=True)
class Found:
    """A set and what is predicted of it.

    Attributes:
        mask: what it drops.
        prediction: how fast drafting with it is, over plain decoding, and under which stop rule.
        c: a one-token step under the mask, over a full one.
    """

    mask: LayerMask
    prediction: Prediction
    c: float


@dataclass(frozen=True)
class Memory:
    """What a search needs to go on with another text of the same kind.

    Attributes:
        gains: (candidate, whether it was dropped, by how much that changed the predicted speed when
            it was last tried).
        seeds: first sets that were tried.
        credit: seconds that the search may still take.
    """

    gains: tuple[tuple[int, bool, float], ...] = ()
    seeds: int = 0
    credit: float = 0.0


class MeasuredSearch:
    """Searches while text is being written (a ``SkipSetSearch``), or over texts that were.

    Offline, give it ``set_orders``, then judge what it proposes until it proposes nothing.

    Args:
        n_layer: the model's layers.
        costs: what steps cost; read anew for each candidate, so they may change.
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
        self._ranked: list[_Set] = []  # first sets, out of them
        self._others = [self._set(mask) for mask in others]
        self._credit = 0.0
        self._cost: float | None = None  # seconds of the last candidate
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
        """Whether no move improves on the set, as far as the text of now tells."""
        return self._orders is not None and self.propose() is None

    @property
    def orders(self) -> list[list[int]] | None:
        """As set; None before."""
        return self._orders

    @property
    def judged(self) -> int:
        """Candidates judged so far."""
        return self._judged

    def memory(self) -> Memory:
        """What to begin another text of this kind with, besides ``found``."""
        self._next_seed()
        gains = ((i, dropped, gain) for (i, dropped), gain in self._gains.items())
        return Memory(tuple(gains), self._seed, self._credit)

    def begin_text(
        self, start: Found | None = None, memory: Memory | None = None, *, credit: float = 0.0
    ) -> None:
        """Another text begins.

        Args:
            start: what was found for its kind or the nearest, used until something better is.
            memory: of the search of the text's own kind; without it ``start``, if there is one,
                takes the place of the first sets that the ranking suggests.
            credit: seconds that the search may take at least, where there is no memory.
        """
        self._found = start
        self._gains = {} if memory is None else {(i, on): gain for i, on, gain in memory.gains}
        self._seed = 0 if memory is None else memory.seeds
        self._skips_ranked_seeds = memory is None and start is not None
        self._credit = max(self._credit, credit if memory is None else memory.credit)
        self._generated = 0
        self._affordable = False
        self._history: list[Sequence[Record]] = []
        self._begin_window(None)

    def _begin_window(self, span: tuple[int, list[int]] | None) -> None:
        """Candidates will be judged over other text, and the set in use first of all.

        span: the position that the window begins at, and its tokens with the one before them.
        """
        self._span = span
        self._level: float | None = None  # the set in use's speed over this window
        self._tried: set[_Set] = set()
        self._moves: list[_Set] | None = None

    # Candidates.

    def savings(self) -> list[float]:
        """What dropping each candidate saves of a one-token step, over a full one."""
        nothing = self._costs.c(NO_MASK)
        return [nothing - self._costs.c(mask_of({i}, self.n_layer)) for i in range(self._n)]

    def set_orders(self, orders: Sequence[Sequence[int]]) -> None:
        """Orders in which candidates are worth dropping, the most reliable first; at least one.
        Candidates that are in none are never dropped."""
        self._orders = [list(order) for order in orders]
        savings = self.savings()
        self._ranked = [
            _first(order, share, savings) for share in self.settings.sizes for order in self._orders
        ]

    def propose(self) -> LayerMask | None:
        """The next set to judge, the same until it is judged; None if there is none left, or no
        order is set and nothing was found before."""
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
        """Hears the records of a set's replay; whether it is now the best.

        All sets that are judged between two new windows have records of the same positions.
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
        """First sets to try."""
        return self._others if self._skips_ranked_seeds else self._others + self._ranked

    def _ordered_moves(self) -> list[_Set]:
        """Every set that differs by one sub-layer or by a swap, the most promising last."""
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
        if len(now ^ tried) == 1:
            (i,) = now ^ tried
            self._gains[i, i in tried] = gained
            if gained > 0:
                self._gains[i, i not in tried] = -gained

    def _set(self, mask: LayerMask) -> _Set:
        return frozenset(int(i) for i in members(mask, self.n_layer).nonzero()[0])

    # While text is being written.

    def observe(self, round: Round) -> None:
        """See ``SkipSetSearch.observe``."""
        self._generated = round.generated
        expected = self._cost or _FIRST_COST * round.verify_seconds
        earned = self.settings.share * (round.draft_seconds + round.verify_seconds)
        self._credit = min(self._credit + earned, _SAVINGS * expected)
        # The set in use is judged again over new text, to compare with at least one other.
        candidates = 2 if self._found is not None and self._level is None else 1
        self._affordable = self._credit >= candidates * expected

    def advance(self, session: Session) -> None:
        """Judges one candidate over the last generated tokens, if there are enough and the share
        of time allows."""
        window = self.settings.window
        full = self._generated > window + 1 and len(session) > window
        if not full or not self._affordable:
            return
        self._affordable = False
        started = time.perf_counter()
        begin, end = self._window(session)
        if self._orders is None:
            found = ranking.orders(session, begin, end, self.savings())
            if found is not None:
                self.set_orders(found)
        elif (mask := self.propose()) is not None:
            records = replay_records(session, mask, begin, end, stretch=self.settings.stretch)
            if records is not None:
                self.judge(mask, records)
        self._cost = time.perf_counter() - started
        self._credit -= self._cost

    def _window(self, session: Session) -> tuple[int, int]:
        """The positions that candidates are judged over: the same as before as long as they are in
        the text and not far back."""
        window = self.settings.window
        if self._span is not None:
            begin, tokens = self._span
            end = begin + window
            near = len(session) < end + _RENEWAL * window
            if near and session.tokens[begin - 1 : end] == tokens:
                return begin, end
        end = len(session)
        self._begin_window((end - window, session.tokens[end - window - 1 : end]))
        return end - window, end

    def state(self) -> dict[str, Any]:
        """The best set, JSON-able; what goes on with other texts is ``found`` and ``memory``."""
        found = self._found
        return {
            "n_layer": self.n_layer,
            "mask": mask_state(found.mask if found is not None else NO_MASK),
            "speed": found.prediction.speed if found is not None else None,
        }


def _first(order: Sequence[int], share: float, savings: Sequence[float]) -> _Set:
    """Of an order as many as save this share of what all in it would, at least one."""
    saved = list(accumulate(savings[i] for i in order))
    enough = sum(each < share * saved[-1] for each in saved) + 1 if saved else 0
    return frozenset(order[:enough])
