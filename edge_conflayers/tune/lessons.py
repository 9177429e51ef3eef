"""The texts that a next-state head learns from: which are written and read, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from edge_conflayers.next_state.head import Floats
from edge_conflayers.next_state.training_data import TrainingData
from edge_conflayers.tune.parallel_texts import (
    FinishedText,
    ParallelTexts,
    Request,
    TrainingToken,
)
from edge_conflayers.tune.task_requests import MAX_ANSWER, TaskRequests

# Answers to one of the user's prompts. With some thirty prompts answered over and over, 45.5 % of
# tokens were among four guesses; with new prompts all along and the inner layer 49.3 % (1.5B, 133
# recorded Spec-Bench texts).
_ANSWERS = 4
_HELD_OUT = 16  # one prompt of so many, with its answers, tests the head; not tuned


@dataclass
class _Part:
    """A text as far as it is known."""

    tokens: list[int] = field(default_factory=list)
    states: list[Floats] = field(default_factory=list)


class Lessons:
    """Requests texts, and keeps them and their states.

    Args:
        texts: writes them.
        prompts: tokens of the user's; those too long for ``texts`` are left out.
        user_texts: tokens of texts of the user's, to be read.
        seed: of the everyday tasks.

    Attributes:
        learned, held_out: texts to learn from, and those with other prompts to test with.
        tokens: of all texts so far.
    """

    def __init__(
        self,
        texts: ParallelTexts,
        prompts: Sequence[Sequence[int]] = (),
        user_texts: Iterable[Sequence[int]] = (),
        *,
        seed: int = 0,
    ) -> None:
        self._texts = texts
        self._tasks = TaskRequests(texts, seed=seed)
        self._prompts = [list(each) for each in prompts if texts.fits(each)]
        self._user_texts = user_texts
        self._parts: dict[Request, _Part] = {}
        self._for_tests: set[Request] = set()
        self.texts: list[FinishedText] = []
        self.learned = TrainingData(texts.model.n_embd)
        self.held_out = TrainingData(texts.model.n_embd)
        self.tokens = 0

    def requests(self) -> Iterator[Request]:
        """What the user gave, in turn with everyday tasks."""
        of_user = _in_turn(self._answers(), self._readings())
        tasks = (self._asked(request, number) for number, request in enumerate(self._tasks))
        yield from _in_turn(of_user, tasks)

    def _answers(self) -> Iterator[Request]:
        for _ in range(_ANSWERS):
            for number, prompt in enumerate(self._prompts):
                yield self._asked(Request(prompt, MAX_ANSWER, len(prompt)), number)

    def _readings(self) -> Iterator[Request]:
        size = self._texts.n_ctx // 2
        for number, text in enumerate(self._user_texts):
            for begin in range(0, len(text), size):
                yield self._asked(Request(text[begin : begin + size], 0, 0), number)

    def _asked(self, request: Request, number: int) -> Request:
        if number % _HELD_OUT == _HELD_OUT - 1:
            self._for_tests.add(request)
        return request

    def is_held_out(self, request: Request) -> bool:
        """Whether a text that has not ended is to test with."""
        return request in self._for_tests

    def take(self, each: TrainingToken | FinishedText) -> None:
        """Takes in what ``ParallelTexts.write`` yields."""
        if isinstance(each, FinishedText):
            if each.request not in self._for_tests:
                self.texts.append(each)
            self._keep(each.request)
            self._tasks.finished(each)
            return
        self.tokens += 1
        part = self._parts.setdefault(each.request, _Part())
        if not part.tokens:
            part.states.append(each.state)
        part.tokens.append(each.token)
        part.states.append(each.next_state)

    def finish(self) -> None:
        """Keeps the texts that have not ended."""
        for request in list(self._parts):
            self._keep(request)

    def _keep(self, request: Request) -> None:
        part = self._parts.pop(request, None)
        if part is not None:
            data = self.held_out if request in self._for_tests else self.learned
            data.add(part.tokens, part.states)
        self._for_tests.discard(request)


def _in_turn(*iterators: Iterator[Request]) -> Iterator[Request]:
    """One of each, until all have ended."""
    while some := [each for iterator in iterators for each in islice(iterator, 1)]:
        yield from some
