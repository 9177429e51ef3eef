"""Drafters for tests, which know the text to come or guess at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edge_conflayers.controller.auto import AutoDrafter
from edge_conflayers.decoding.round import Round
from edge_conflayers.engine.draft import ROOT, Draft
from edge_conflayers.engine.session import LayerMask, TextSession

# What to draft when this many tokens of the text are known (the last one not in the cache yet).
Script = Callable[[int, int], Sequence[int]]


class ScriptedDrafter:
    """Drafts what a script says and keeps the rounds that it hears of."""

    def __init__(self, script: Script, prompt: int) -> None:
        self.script = script
        self.prompt = prompt
        self.rounds: list[Round] = []
        self.limits: list[int] = []

    def begin(self, session: TextSession, prompt: Sequence[int]) -> None:
        self.begun = (len(session), len(prompt))

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        self.limits.append(limit)
        tokens = tuple(self.script(len(session) - self.prompt + len(pending), limit))
        return Draft(tokens, (1.0,) * len(tokens))

    def learn(self, session: TextSession, round: Round) -> None:
        self.rounds.append(round)

    def report(self) -> dict[str, Any]:
        return {"rounds": len(self.rounds)}


class RandomSkipSetDrafter(ScriptedDrafter):
    """Drafts with the model's own layers, another random half of them dropped each round."""

    def __init__(self, seed: int = 0, max_draft: int = 8) -> None:
        super().__init__(lambda known, limit: (), 0)
        self.random = random.Random(seed)
        self.max_draft = max_draft

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        layers = range(session.model.n_layer)
        mask = LayerMask(
            attention=frozenset(self.random.sample(layers, self.random.randint(0, len(layers)))),
            mlp=frozenset(self.random.sample(layers, self.random.randint(0, len(layers) // 2))),
        )
        most = min(limit, self.random.randint(1, self.max_draft))
        return session.draft(mask, pending, limit=most, stop_probability=0.0)


class TreeDrafter(ScriptedDrafter):
    """Drafts random trees around a known text: its next tokens in some branch, with wrong siblings
    before and after them; nothing where trees are not verified."""

    def __init__(self, text: Sequence[int], prompt: int, seed: int = 0, most: int = 20) -> None:
        super().__init__(lambda known, limit: (), prompt)
        self.text = text
        self.most = most
        self.random = random.Random(seed)

    def draft(self, session: TextSession, pending: Sequence[int], limit: int) -> Draft:
        self.limits.append(limit)
        if not session.verifies_trees:
            return Draft()
        known = len(session) - self.prompt + len(pending)
        tokens: list[int] = []
        parents: list[int] = []
        right = [ROOT]  # the nodes of the text's own branch
        for _ in range(self.random.randint(0, min(limit, self.most))):
            parent = self.random.choice([right[-1], len(tokens) - 1, *range(-1, len(tokens))])
            taken = {t for t, p in zip(tokens, parents, strict=True) if p == parent}
            following = self.text[known + len(right) - 1 : known + len(right)]
            if parent == right[-1] and following and self.random.random() < 0.6:
                token = following[0]
            else:
                token = self.random.randrange(2, session.model.n_vocab)
            if token in taken:
                continue
            if parent == right[-1] and [token] == list(following):
                right.append(len(tokens))
            tokens.append(token)
            parents.append(parent)
        return Draft(tuple(tokens), (0.5,) * len(tokens), tuple(parents))


class SteadyAuto(AutoDrafter):
    """The controller in a world where steps take what its costs say, so that it drafts the same
    everywhere."""

    def _steady(self, round: Round) -> Round:
        seconds = self.times.step(len(round.pending) + round.drafted)
        by_layers = round.drafted > 0 and round.draft.source(0) == "layers"
        drafting = 0.05 * round.drafted if by_layers else 0.0
        return replace(round, draft_seconds=drafting, verify_seconds=seconds)

    def learn(self, session: TextSession, round: Round) -> None:
        super().learn(session, self._steady(round))

    def skipped(self, session: TextSession, rounds: Sequence[Round], woken: bool) -> None:
        super().skipped(session, [self._steady(round) for round in rounds], woken)


class ForeseeingAuto(SteadyAuto):
    """The same with a next-state head for models of any vocabulary."""

    def _begin_vocabulary(self, session: TextSession, prompt: Sequence[int], *rest: Any) -> None:
        super()._begin_vocabulary(session, prompt, *rest)
        if not session.draft_vocabulary:  # the usual size is more than all tokens
            self._vocabulary.size = self._model.n_vocab // 2
            self._vocabulary.begin(session, prompt)


def partly_right(text: Sequence[int], n_vocab: int, seed: int = 0, longest: int = 9) -> Script:
    """Right for a random number of tokens, then random ones."""
    source = random.Random(seed)

    def script(known: int, limit: int) -> list[int]:
        right = list(text[known : known + source.randint(0, longest)])
        wrong = [source.randrange(3, n_vocab) for _ in range(source.randint(0, 3))]
        return [*right, *wrong][:limit]

    return script
