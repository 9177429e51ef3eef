"""Teaches a model's next-state head with the user's prompts, prompts that the model makes up, and
its answers to both."""

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
from edge_conflayers.next_state.head import HEAD_VOCABULARY_SIZE, NextStateHead
from edge_conflayers.next_state.regression import HeadRegression
from edge_conflayers.tune.parallel_texts import (
    FinishedText,
    ParallelTexts,
    Request,
    TrainingToken,
)

_PARALLEL = 16  # texts at once; not tuned
_MAX_ANSWER = 160  # tokens; not tuned
_MAX_MADE_UP_PROMPT = 48  # tokens; not tuned
# Answers to one of the user's prompts. With some thirty prompts answered over and over, 45.5 % of
# tokens were among four guesses; with new prompts all along and the inner layer 49.3 % (1.5B, 133
# recorded Spec-Bench texts).
_ANSWERS = 4
_HELD_OUT = 16  # one answer of so many tests the head; not tuned
_MAX_TESTS = 1024  # tokens; not tuned
_GUESSES = 4


@dataclass(frozen=True)
class Progress:
    """How far teaching is: seconds since it began, and tokens so far."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Taught:
    """A head and how good it is.

    Attributes:
        head: the new head, or the known one if that is better.
        tokens: tokens that the new head was taught with.
        foreseen: share of the tokens of held-out texts that were its first guess, and one of its
            first four.
        interrupted: whether teaching was cut short.
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
    """Generates texts for a time and teaches a head with them. An interrupt ends the texts; those
    generated so far count.

    Args:
        prompts: tokens of each; answered in turn with those that the model makes up. Those too long
            for ``ParallelTexts`` are left out.
        seconds: for generating; solving takes some seconds more.
        known: an earlier head, which is returned if it guesses better.
        threads: CPU threads; None for the machine's physical cores.
        on_progress: called after every token.

    Returns:
        None if there was too little text.

    Raises:
        BadInput: the model cannot be served by a next-state head.
    """
    began = time.monotonic()
    interrupted = False
    with ParallelTexts(model, n_parallel=_PARALLEL, threads=threads) as texts:
        token_embedding(texts.context, 0, model.n_embd)  # refused here if it cannot be read
        teacher = _Teacher(texts, prompts)
        try:
            for each in texts.write(teacher.requests()):
                spent = time.monotonic() - began
                teacher.take(each)
                on_progress(Progress(spent, len(teacher.regression)))
                if spent > seconds:
                    break
        except KeyboardInterrupt:
            interrupted = True
        taught = teacher.finish(known) if teacher.regression.enough else None
    if taught is None and interrupted:
        raise KeyboardInterrupt
    return None if taught is None else replace(taught, interrupted=interrupted)


class _Teacher:
    """Requests texts, and teaches a head with most of them and tests it with the rest."""

    def __init__(self, texts: ParallelTexts, prompts: Sequence[Sequence[int]]) -> None:
        self._texts = texts
        self._model = texts.model
        self._prompts = [list(each) for each in prompts if texts.fits(each)]
        self._opening = (
            opening if (opening := opening_tokens(self._model)) and texts.fits(opening) else None
        )
        self._beginning = self._model.tokenize("") or self._model.tokenize("\n")
        self._made_up: deque[list[int]] = deque()
        self._making_up: set[Request] = set()
        self._held_out: set[Request] = set()
        self._answers = 0
        self._tests: list[TrainingToken] = []
        self.regression = HeadRegression(self._model.n_embd)

    def requests(self) -> Iterator[Request]:
        """The user's prompts, four times each, in turn with prompts that the model makes up; texts
        from nothing where it has no chat template to make up prompts in."""
        of_user = self._of_user()
        while some := [each for each in (next(of_user, None), self._of_model()) if each]:
            yield from some

    def _of_user(self) -> Iterator[Request]:
        for answers in range(_ANSWERS):
            for prompt in self._prompts:
                train_from = len(prompt) if answers else len(self._opening or ())
                yield self._answer(prompt, train_from)

    def _of_model(self) -> Request | None:
        if self._opening is None:
            fits = self._texts.fits(self._beginning)
            return self._answer(self._beginning, len(self._beginning)) if fits else None
        if self._made_up:
            return self._answer(self._made_up.popleft(), len(self._opening))
        request = Request(self._opening, _MAX_MADE_UP_PROMPT)
        self._making_up.add(request)
        return request

    def _answer(self, prompt: Sequence[int], train_from: int) -> Request:
        request = Request(prompt, _MAX_ANSWER, train_from)
        self._answers += 1
        if self._answers % _HELD_OUT == 0:
            self._held_out.add(request)
        return request

    def take(self, each: TrainingToken | FinishedText) -> None:
        """Takes in what ``ParallelTexts`` yields."""
        if each.request in self._making_up:  # its tokens count when they are read as a prompt
            if isinstance(each, FinishedText):
                self._making_up.remove(each.request)
                if text := self._model.text(each.tokens).strip():
                    message = {"role": "user", "content": text}
                    self._made_up.append(chat_tokens(self._model, [message]))
        elif isinstance(each, FinishedText):
            return
        elif each.request in self._held_out:
            if each.generated:
                self._tests.append(each)
        else:
            embedding = token_embedding(self._texts.context, each.token, self._model.n_embd)
            self.regression.add(each.state, each.token, embedding, each.next_state)

    def finish(self, known: NextStateHead | None) -> Taught:
        """Solves for the head, tests it and the known one on the held-out texts, and returns the
        better."""
        head = self.regression.solve()
        vocabulary = DraftVocabulary(self._model)
        vocabulary.expect(head.written)
        self._texts.context.set_draft_vocabulary(vocabulary.tokens(HEAD_VOCABULARY_SIZE))
        results = [self._tested(each) for each in (head, known) if each is not None]
        return max(results, key=lambda each: each.foreseen[-1])

    def _tested(self, head: NextStateHead) -> Taught:
        context = self._texts.context
        set_next_state(context, head.weights)
        pairs = list(islice(self._followed(), _MAX_TESTS))
        hits = np.zeros(_GUESSES)
        chances = AcceptanceRates()
        for token, follower in pairs:
            guesses, probabilities = next_tokens(context, token.state, token.token, _GUESSES)
            found = np.array(guesses) == follower
            hits += found
            for probability, right in zip(probabilities, found, strict=True):
                chances.observe(NAME, probability, bool(right))
        shares = hits.cumsum() / max(1, len(pairs))
        head = replace(head, chances=chances.counts(NAME))
        return Taught(head, len(self.regression), (float(shares[0]), float(shares[-1])))

    def _followed(self) -> Iterator[tuple[TrainingToken, int]]:
        """Each token of the held-out texts, and the one that came after it."""
        before: dict[Request, TrainingToken] = {}
        for token in self._tests:
            if token.request in before:
                yield before[token.request], token.token
            before[token.request] = token
