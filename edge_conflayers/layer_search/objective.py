"""The objective of searches for skip sets: predicted speed of drafting with a mask.

A replay of the masked model over a text that is there already (``replays``) says for each position
whether the masked model's most likely token is the text's, and how likely it was. From these
records follow the rounds that drafting would have gone through. A round that starts at ``i``, with
stop probability ``tau`` and at most ``gamma`` drafted tokens,

- drafts ``D_i`` tokens: up to and including the first whose probability is under ``tau``, at most
  ``gamma``;
- accepts ``A_i`` of them: those before the first that is not the text's;
- ends at ``i + A_i + 1``, since the full model adds one more token;
- costs ``D_i * c + V(D_i + 1)``, in full one-token steps.

The predicted speed, over plain decoding, is the ratio of sums over rounds::

    sum(A_i + 1) / sum(D_i * c + V(D_i + 1))

With ``tau = 0`` and matches that are independent with chance ``alpha`` this is the expected
speed-up of Leviathan et al. (``expected_speed``). Here independence is not assumed: matches come in
runs, and a round starts where the one before it ended, not anywhere.

Approximations: after a wrong token, the masked model's probabilities are those along the text, not
along the draft; its own keys and values reach back to where the replay's stretch begins, not to
where the draft does; and the records are taken as a ring, so that their end cuts off no round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_conflayers.engine.session import LayerMask

STOPS = (0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Stop probabilities to choose from. With 50 of them and every length up to 24, predicted speed
rises by 0.7 % in the mean of 60 synthetic windows of 64 records, 3.7 % at most (2026-11-28)."""

LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15)
"""Draft lengths to choose from; see ``STOPS``."""

# On those windows, speeds are within 0.8 % of those over eight times as many rounds (2026-11-28);
# with 3 doublings within 4 %.
_DOUBLINGS = 5
ROUNDS = 2**_DOUBLINGS
"""Rounds followed from every start, after as many that are left out."""


class Costs(Protocol):
    """Costs of steps, in full one-token steps (``costs.model.CostsAtContext``)."""

    def c(self, mask: LayerMask) -> float:
        """c(S): a one-token draft step under a mask."""
        ...

    def v(self, n: int) -> float:
        """V(n): a full step over n tokens with logits for all of them."""
        ...


class Record(NamedTuple):
    """One replayed position.

    Attributes:
        matches: whether the masked model's most likely token is the text's.
        probability: the masked model's probability of that token.
    """

    matches: bool
    probability: float


@dataclass(frozen=True)
class Prediction:
    """Predicted speed of drafting with a mask, and the stop rule that it is predicted for.

    Attributes:
        speed: tokens per second, over plain decoding.
        stop_probability: a drafted token less likely than this ends the draft.
        max_draft: most tokens in a draft.
        acceptance: share of drafted tokens that are accepted.
        tokens_per_round: accepted tokens and the full model's own.
    """

    speed: float
    stop_probability: float
    max_draft: int
    acceptance: float
    tokens_per_round: float


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens of a round of ``gamma`` drafted ones if each is accepted with chance ``alpha`` given
    that all before it were (Leviathan et al., arXiv 2211.17192)."""
    if alpha >= 1.0:
        return gamma + 1.0
    return float((1.0 - alpha ** (gamma + 1)) / (1.0 - alpha))


def expected_speed(alpha: float, gamma: int, c: float, v: Callable[[int], float]) -> float:
    """The speed of such rounds, over plain decoding.

    Args:
        c: a one-token draft step, over a full one-token step.
        v: V(n), a full step over n tokens, likewise.
    """
    return expected_tokens(alpha, gamma) / (gamma * c + v(gamma + 1))


def best_prediction(
    records: Sequence[Record],
    mask: LayerMask,
    costs: Costs,
    *,
    stops: Sequence[float] = STOPS,
    lengths: Sequence[int] = LENGTHS,
) -> Prediction:
    """The objective under the stop rule that gives the highest speed; of equals, the one with the
    lowest stop probability and the shortest drafts. It may be slower than plain decoding.

    Args:
        records: of a replay of the mask, in the order of the text, at least one; of several texts
            one after the other.
        mask: what was dropped in the replay.
        costs: of steps, at the text's context length.
        stops: stop probabilities to choose from, at least one.
        lengths: draft lengths to choose from, at least one, each at least 1.
    """
    table = _Table(records)
    c = costs.c(mask)
    v = np.array([costs.v(n + 1) for n in range(max(lengths) + 1)])
    found = []
    for stop in stops:
        for length in lengths:
            found.append(_simulate(table, c, v, stop, length))
            if length >= table.longest_draft(stop):
                break  # longer limits change nothing
    return max(found, key=lambda prediction: prediction.speed)


class _Table:
    """The records as arrays, with the distance from each position to the end of its draft."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.probabilities = np.array([record.probability for record in records])
        self._until_wrong = _steps_until(np.array([not record.matches for record in records]))
        self._until_unsure: dict[float, npt.NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self.probabilities)

    def until_unsure(self, stop: float) -> npt.NDArray[np.int64]:
        if stop not in self._until_unsure:
            self._until_unsure[stop] = _steps_until(self.probabilities < stop)
        return self._until_unsure[stop]

    def longest_draft(self, stop: float) -> int:
        """Length of the longest draft without a limit on its length."""
        return int(self.until_unsure(stop).max()) + 1

    def rounds(
        self, stop: float, length: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tokens drafted and accepted in the round that starts at each position: int [n] each."""
        drafted = np.minimum(self.until_unsure(stop) + 1, length)
        return drafted, np.minimum(self._until_wrong, drafted)


def _steps_until(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Steps from each position of a ring to the next marked one, 0 at a marked one; a large number
    if none is marked."""
    n = len(marked)
    places = np.flatnonzero(marked)
    if places.size == 0:
        return np.full(n, np.iinfo(np.int32).max, dtype=np.int64)
    following = np.searchsorted(places, np.arange(n))
    ring = np.append(places, places[0] + n)
    steps: npt.NDArray[np.int64] = ring[following] - np.arange(n)
    return steps


def _simulate(
    table: _Table, c: float, v: npt.NDArray[np.float64], stop: float, length: int
) -> Prediction:
    """Follows rounds from every start at once, by doubling: the sums over ``2 n`` rounds from a
    start are those over ``n`` rounds from there plus those over ``n`` more from where these end.

    Only a second run of ``ROUNDS`` rounds counts, from where the first one has ended: by then the
    starts are those that drafting arrives at.

    Args:
        v: V(n + 1) by n.
    """
    drafted, accepted = table.rounds(stop, length)
    cost = drafted * c + v[drafted]
    sums = np.stack([drafted, accepted, cost])
    ends = (np.arange(len(table)) + accepted + 1) % len(table)
    for _ in range(_DOUBLINGS):
        sums = sums + sums[:, ends]
        ends = ends[ends]
    all_drafted, all_accepted, all_cost = sums[:, ends].mean(axis=1)
    tokens = float(all_accepted) + ROUNDS
    return Prediction(
        speed=tokens / float(all_cost),
        stop_probability=stop,
        max_draft=length,
        acceptance=float(all_accepted / all_drafted),
        tokens_per_round=tokens / ROUNDS,
    )
