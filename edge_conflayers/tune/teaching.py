"""Teaches a model's next-state head by texts that the model reads and writes: the user's prompts,
those that it makes up, and its answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from edge_conflayers.chat import chat_tokens, opening_tokens
from edge_conflayers.controller.acceptance import AcceptanceRates
from edge_conflayers.drafters.draft_vocabulary import DraftVocabulary
from edge_conflayers.drafters.next_state import NAME
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.session.next_state_head import (
    next_tokens,
    set_next_state,
    token_embedding,
)
from edge_conflayers.next_state.head import FORESEEN_AMONG, Lessons, NextStateHead
from edge_conflayers.tune.parallel_texts import Asked, FinishedText, ParallelTexts, Token

_TOGETHER = 16
_MOST_TOKENS = 160  # of a text
_MADE_UP_TOKENS = 48  # of a made-up prompt
_ANSWERS = 4  # most to one of the user's prompts: more would say much the same
_HELD_OUT = 16  # one answer of so many tests what the others have taught
_MOST_TESTED = 1024
_WIDTH = 4


@dataclass(frozen=True)
class Progress:
    """Where teaching is: seconds since it began, and tokens so far."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Taught:
    """A head and what it is worth.

    Attributes:
        head: taught.
        tokens: that it was taught by.
        foreseen: the share of tokens of other texts that were the likeliest by it, and among its
            four likeliest.
        interrupted: whether it was cut short.
    """

    head: NextStateHead
    tokens: int
    foreseen: tuple[float, float]
    interrupted: bool = False


def teach(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    seconds: float,
    known: NextStateHead | None = None,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Taught | None:
    """Writes texts for some time and learns from them. An interrupt ends the writing; what was
    written counts.

    Args:
        prompts: tokens of each; answered in turn with those that the model makes up. Long ones are
            left out.
        known: an earlier head, which is kept if it foresees more.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by a next-state head.
    """
    began = time.monotonic()
    interrupted = False
    with ParallelTexts(model, most=_TOGETHER, threads=threads) as texts:
        token_embedding(texts.context, 0, model.n_embd)  # finds out whether it can be had
        school = _School(texts, prompts)
        try:
            for each in texts.write(school.questions()):
                spent = time.monotonic() - began
                school.hear(each)
                on_progress(Progress(spent, len(school.lessons)))
                if spent > seconds:
                    break
        except KeyboardInterrupt:
            interrupted = True
        taught = school.examine(known) if school.lessons.enough else None
    if taught is None and interrupted:
        raise KeyboardInterrupt
    return None if taught is None else replace(taught, interrupted=interrupted)


class _School:
    """Asks for texts, and learns from them."""

    def __init__(self, texts: ParallelTexts, prompts: Sequence[Sequence[int]]) -> None:
        self._texts = texts
        self._model = texts.model
        self._prompts = [list(each) for each in prompts if texts.fits(each)]
        self._opening = (
            opening if (opening := opening_tokens(self._model)) and texts.fits(opening) else None
        )
        self._beginning = self._model.tokenize("") or self._model.tokenize("\n")
        self._made_up: deque[list[int]] = deque()
        self._making_up: set[Asked] = set()
        self._held_out: set[Asked] = set()
        self._answers = 0
        self._tests: list[Token] = []
        self.lessons = Lessons(self._model.n_embd)

    def questions(self) -> Iterator[Asked]:
        """The user's prompts a few times each and, in turn with them, prompts that the model makes
        up. Where it cannot, any texts."""
        of_user = self._of_user()
        while some := [each for each in (next(of_user, None), self._of_model()) if each]:
            yield from some

    def _of_user(self) -> Iterator[Asked]:
        for answers in range(_ANSWERS):
            for prompt in self._prompts:
                told_from = len(prompt) if answers else len(self._opening or ())
                yield self._answer(prompt, told_from)

    def _of_model(self) -> Asked | None:
        if self._opening is None:
            fits = self._texts.fits(self._beginning)
            return self._answer(self._beginning, len(self._beginning)) if fits else None
        if self._made_up:
            return self._answer(self._made_up.popleft(), len(self._opening))
        asked = Asked(self._opening, _MADE_UP_TOKENS)
        self._making_up.add(asked)
        return asked

    def _answer(self, prompt: Sequence[int], told_from: int) -> Asked:
        asked = Asked(prompt, _MOST_TOKENS, told_from)
        self._answers += 1
        if self._answers % _HELD_OUT == 0:
            self._held_out.add(asked)
        return asked

    def hear(self, each: Token | FinishedText) -> None:
        """What was read and written, in the order of ``ParallelTexts``."""
        if each.asked in self._making_up:  # its tokens are heard when they are read as a prompt
            if isinstance(each, FinishedText):
                self._making_up.remove(each.asked)
                if text := self._model.text(each.tokens).strip():
                    message = {"role": "user", "content": text}
                    self._made_up.append(chat_tokens(self._model, [message]))
        elif isinstance(each, FinishedText):
            return
        elif each.asked in self._held_out:
            if each.drawn:
                self._tests.append(each)
        else:
            embedding = token_embedding(self._texts.context, each.token, self._model.n_embd)
            self.lessons.add(each.state, each.token, embedding, each.next_state)

    def examine(self, known: NextStateHead | None) -> Taught:
        """Learns, and asks the new head and the known one what followed in the held-out texts."""
        head = self.lessons.learn()
        vocabulary = DraftVocabulary(self._model)
        vocabulary.expect(head.written)
        self._texts.context.set_draft_vocabulary(vocabulary.tokens(FORESEEN_AMONG))
        results = [self._examined(each) for each in (head, known) if each is not None]
        return max(results, key=lambda each: each.foreseen[-1])

    def _examined(self, head: NextStateHead) -> Taught:
        context = self._texts.context
        set_next_state(context, head.weights)
        pairs = list(islice(self._followed(), _MOST_TESTED))
        hits = np.zeros(_WIDTH)
        chances = AcceptanceRates()
        for token, follower in pairs:
            guesses, probabilities = next_tokens(context, token.state, token.token, _WIDTH)
            found = np.array(guesses) == follower
            hits += found
            for probability, right in zip(probabilities, found, strict=True):
                chances.observe(NAME, probability, bool(right))
        shares = hits.cumsum() / max(1, len(pairs))
        head = replace(head, chances=chances.counts(NAME))
        return Taught(head, len(self.lessons), (float(shares[0]), float(shares[-1])))

    def _followed(self) -> Iterator[tuple[Token, int]]:
        """Of held-out texts each token and the one that came after it."""
        before: dict[Asked, Token] = {}
        for token in self._tests:
            if token.asked in before:
                yield before[token.asked], token.token
            before[token.asked] = token
