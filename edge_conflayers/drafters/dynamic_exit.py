"""DEL (arXiv 2504.05598): drafts by an early exit, whose layer and draft length are chosen each
round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import Draft
from edge_conflayers.engine.session import LayerMask, TextSession
from edge_conflayers.errors import BadInput
from edge_conflayers.layer_search.objective import expected_tokens
from edge_conflayers.layer_search.published.layer_runner import LayerRunner, NoRoom
from edge_conflayers.profiles.saved_state import SavedState, check_same


@dataclass(frozen=True)
class DelSettings:
    """The method's settings.

    Raises:
        BadInput: a value is out of its range.
    """

    exits: tuple[int, ...] | None = None
    """Layers after which to exit, to choose from; at every eighth of the model if not given. In the
    paper, all layers."""
    max_draft: int = 12
    """Most tokens drafted in a round. Not tuned."""
    decay: float = 0.95
    """What remains of the counts after each token. Not tuned."""
    shadow_tokens: int = 8
    """Verified positions at which shadow tokens are drawn at once. Not tuned."""
    shadow_interval: int = 16
    """Rounds between shadow tokens; the paper's is 1. Not tuned."""
    first_threshold: float = 0.5
    """Stop threshold of an exit that has not been seen both right and wrong. Not tuned."""

    def __post_init__(self) -> None:
        if not (
            0.0 < self.decay <= 1.0
            and min(self.max_draft, self.shadow_tokens, self.shadow_interval) >= 1
            and 0.0 <= self.first_threshold <= 1.0
        ):
            raise BadInput(
                f"{self} makes no sense: give a decay above 0 and up to 1, a threshold from 0 to"
                " 1, and counts of at least 1"
            )

    def exits_of(self, n_layer: int) -> tuple[int, ...]:
        """The exits in a model of n_layer layers, ascending.

        Raises:
            BadInput: there are none, or one that it does not have.
        """
        exits = self.exits
        if exits is None:
            exits = tuple({round(n_layer * eighth / 8) for eighth in range(1, 8)})
            exits = tuple(layer for layer in exits if 0 < layer < n_layer)
        if not exits or not all(0 < layer < n_layer for layer in exits):
            raise BadInput(
                f"a model of {n_layer} layers has no exits {list(exits)}: give some from 1 to"
                f" {n_layer - 1}, or use --method plain"
            )
        return tuple(sorted(set(exits)))


_Fading = Annotated[float, msgspec.Meta(ge=0, lt=1e9)]


class SavedExit(SavedState, array_like=True):
    """An ``ExitRecord``: counts of unmatched and matched tokens, and sums of their confidences."""

    counts: tuple[_Fading, _Fading]
    sums: tuple[_Fading, _Fading]


class _State(SavedState):
    kind: str
    exits: dict[int, SavedExit]  # by layer


class ExitRecord:
    """Statistics of one exit: exponentially decaying counts of matched and unmatched tokens."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._count = [0.0, 0.0]  # unmatched, matched
        self._sum = [0.0, 0.0]  # of their confidences

    def add(self, confidence: float, matched: bool) -> None:
        """Counts one token of the exit.

        Args:
            confidence: the exit's probability of the token.
            matched: whether it is the text's token.
        """
        for which in (0, 1):
            self._count[which] *= self._decay
            self._sum[which] *= self._decay
        self._count[matched] += 1.0
        self._sum[matched] += confidence

    @property
    def alpha(self) -> float | None:
        """Share of tokens that matched; None before any was counted."""
        seen = sum(self._count)
        return self._count[True] / seen if seen > 0 else None

    def threshold(self, first: float) -> float:
        """The confidence under which a draft stops: halfway between the means of unmatched and of
        matched tokens.

        Args:
            first: the threshold before both were seen, and if unmatched tokens are the surer ones.
        """
        if min(self._count) <= 0:
            return first
        unmatched, matched = (s / n for s, n in zip(self._sum, self._count, strict=True))
        return (unmatched + matched) / 2 if unmatched < matched else first

    def state(self) -> SavedExit:
        """What to save."""
        (no, yes), (sum_no, sum_yes) = self._count, self._sum
        return SavedExit((no, yes), (sum_no, sum_yes))

    def resume(self, saved: SavedExit) -> None:
        """Goes on from what ``state`` returned."""
        self._count, self._sum = list(saved.counts), list(saved.sums)


RoundCost = Callable[[int, int], float]
"""The cost of a round that drafts ``gamma`` tokens by an exit: of (exit layer, gamma)."""


def layers_run(n_layer: int) -> RoundCost:
    """The paper's cost: how many layers run, with all tokens of a verification counted as one."""
    return lambda exit_layer, gamma: (gamma + 1) * exit_layer + (n_layer - exit_layer)


def choose_exit(alphas: Mapping[int, float], max_draft: int, cost: RoundCost) -> tuple[int, int]:
    """The exit layer and draft length with the most expected tokens per cost; of equals, the
    shorter draft, then the earlier exit.

    Args:
        alphas: the chance of acceptance of each exit's token; at least one exit.
        max_draft: longest draft; the shortest is 0.
        cost: of a round.

    Returns:
        Exit layer and gamma.
    """
    return min(
        ((layer, gamma) for layer in alphas for gamma in range(max_draft + 1)),
        key=lambda pair: (
            -expected_tokens(alphas[pair[0]], pair[1]) / cost(*pair),
            pair[1],
            pair[0],
        ),
    )


class DelDrafter:
    """Drafts by the exit, and for the length, with the most expected tokens per cost.

    The paper draws *shadow tokens* (each layer's own token at the verified positions) in every
    verification. Here they are drawn every ``shadow_interval`` rounds, at the last
    ``shadow_tokens`` verified positions and for a ladder of exits: one step over these tokens up to
    the last exit, then the head once for each token and exit. The exit in use also learns from
    every round.

    Args:
        n_layer: the model's layers.
        cost: of a round; the paper's ``layers_run`` if not given.

    Raises:
        BadInput: the model has no such exits.
    """

    def __init__(
        self, n_layer: int, settings: DelSettings | None = None, cost: RoundCost | None = None
    ) -> None:
        self.settings = settings or DelSettings()
        self.cost = cost or layers_run(n_layer)
        self.records = {
            layer: ExitRecord(self.settings.decay) for layer in self.settings.exits_of(n_layer)
        }
        self.exit_layer, self.gamma = 0, 0
        self._wait = 0
        self._choose()

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        """See ``Drafter.begin``; nothing to prepare."""

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        limit = min(limit, self.gamma)
        if limit <= 0:
            return Draft()
        record = self.records[self.exit_layer]
        return session.draft_exit(
            self.exit_layer,
            pending,
            limit=limit,
            stop_probability=record.threshold(self.settings.first_threshold),
        )

    def learn(self, session: TextSession, round: Round) -> None:
        draft = round.draft
        if draft.exit is not None:
            record = self.records[draft.exit.layer]
            for i, confidence in enumerate(draft.probabilities[: round.accepted + 1]):
                record.add(confidence, i < round.accepted)
        self._wait -= 1
        if self._wait <= 0 and self._draw_shadows(session, round.token):
            self._wait = self.settings.shadow_interval
        self._choose()

    def _draw_shadows(self, session: TextSession, token: int) -> bool:
        """Draws and counts shadow tokens.

        Args:
            token: what follows the session's text.

        Returns:
            Whether there was text enough, and room in the cache.
        """
        n = min(self.settings.shadow_tokens, len(session) - 1)
        if n < 1:
            return False
        if not session.model.shows_states:
            return self._replay_shadows(session, n)
        text = [*session.tokens[len(session) - n + 1 :], token]
        runner = LayerRunner(session, n)
        exits = list(self.records)
        try:
            drawn = runner.tokens(runner.streams(exits[-1])[exits])
        except NoRoom:
            return False
        for layer, shadows in zip(exits, drawn, strict=True):
            for (shadow, confidence), actual in zip(shadows, text, strict=True):
                self.records[layer].add(confidence, shadow == actual)
        return True

    def _replay_shadows(self, session: TextSession, n: int) -> bool:
        """The same by replays of each exit, along what the session holds of the text."""
        n_layer, end = session.model.n_layer, len(session)
        for layer, record in self.records.items():
            exit_mask = LayerMask.layers(range(layer, n_layer))
            shadows = session.replay(exit_mask, end - n)
            if shadows is None:
                return False
            for (shadow, confidence), actual in zip(shadows, session.tokens[-n:], strict=True):
                record.add(confidence, shadow == actual)
        return True

    def _choose(self) -> None:
        alphas = {
            layer: record.alpha
            for layer, record in self.records.items()
            if record.alpha is not None
        }
        if alphas:
            self.exit_layer, self.gamma = choose_exit(alphas, self.settings.max_draft, self.cost)

    def report(self) -> dict[str, Any]:
        return {
            "exit_layer": self.exit_layer,
            "gamma": self.gamma,
            "alphas": {layer: record.alpha for layer, record in self.records.items()},
        }

    def state(self) -> dict[str, Any]:
        """What it has seen of each exit: JSON-able."""
        exits = {layer: record.state() for layer, record in self.records.items()}
        return _State("del", exits).to_json()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` returned.

        Raises:
            BadInput: not a state of the same exits.
        """
        saved = _State.from_json(state)
        check_same("method", saved.kind, "del")
        check_same("exits", list(saved.exits), list(self.records))
        for layer, record in self.records.items():
            record.resume(saved.exits[layer])
        self._choose()
