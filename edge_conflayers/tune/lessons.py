"""The texts that a next-state head learns from: which are written and read, and what is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from edge_conflayers.next_state.head import Floats
from edge_conflayers.next_state.training_data import MOST_BYTES, TrainingData
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
_SHARE = 8  # of what is kept, one in so many bytes is to test with; not tuned


@dataclass(frozen=True)
class Said:
    """A text that was written for the user.

    Attributes:
        tokens: of the prompt and what was written.
        prompt: how many of them are the prompt.
        known: how many of them were in texts before, and teach nothing more.
    """

    tokens: Sequence[int]
    prompt: int
    known: int = 0


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
        said: texts that come while others are written; asked again after it had none.
        seed: of the everyday tasks.
        most_bytes: of the states that are kept to learn from; an eighth of that to test with.

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
        said: Iterator[Said] | None = None,
        seed: int = 0,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._texts = texts
        self._tasks = TaskRequests(texts, seed=seed)
        self._prompts = [list(each) for each in prompts if texts.fits(each)]
        self._user_texts = user_texts
        self._said = _SaidRequests(said or iter(()), self._of_said)
        self._parts: dict[Request, _Part] = {}
        self._for_tests: set[Request] = set()
        self.texts: list[FinishedText] = []
        self.learned = TrainingData(texts.model.n_embd, most_bytes=most_bytes)
        self.held_out = TrainingData(texts.model.n_embd, most_bytes=most_bytes // _SHARE)
        self.tokens = 0

    def requests(self) -> Iterator[Request]:
        """What the user gave, in turn with everyday tasks."""
        of_user = _in_turn(self._answers(), self._readings())
        tasks = (self._asked(request, number) for number, request in enumerate(self._tasks))
        yield from _in_turn(self._said, of_user, tasks)

    def _answers(self) -> Iterator[Request]:
        for _ in range(_ANSWERS):
            for number, prompt in enumerate(self._prompts):
                yield self._asked(Request(prompt, MAX_ANSWER, len(prompt)), number)

    def _readings(self) -> Iterator[Request]:
        size = self._texts.n_ctx // 2
        for number, text in enumerate(self._user_texts):
            for begin in range(0, len(text), size):
                yield self._asked(Request(text[begin : begin + size], 0, 0), number)

    def _of_said(self, said: Said, number: int) -> list[Request]:
        size, prompt = self._texts.n_ctx // 2, said.tokens[: said.prompt]
        parts = range(said.known, len(said.tokens), size)
        found = [Request(said.tokens[begin : begin + size], 0, 0) for begin in parts]
        if self._texts.fits(prompt):
            found += [Request(prompt, MAX_ANSWER, len(prompt)) for _ in range(_ANSWERS)]
        return [self._asked(each, number) for each in found]

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
            self._for_tests.discard(each.request)
            self._tasks.finished(each)
            return
        self.tokens += 1
        part = self._parts.setdefault(each.request, _Part())
        if not part.tokens:
            part.states.append(each.state)
        part.tokens.append(each.token)
        part.states.append(each.next_state)

    def finish(self) -> None:
        """Keeps what there is of the texts that have not ended."""
        for request in list(self._parts):
            self._keep(request)

    def _keep(self, request: Request) -> None:
        part = self._parts.pop(request, None)
        if part is not None:
            data = self.held_out if request in self._for_tests else self.learned
            data.add(part.tokens, part.states)


class _SaidRequests(Iterator[Request]):
    """Requests for what was said: there are more as soon as more is said."""

    def __init__(
        self, said: Iterator[Said], requests_of: Callable[[Said, int], list[Request]]
    ) -> None:
        self._said = said
        self._requests_of = requests_of
        self._number = 0
        self._waiting: deque[Request] = deque()

    def __next__(self) -> Request:
        while not self._waiting:
            self._waiting.extend(self._requests_of(next(self._said), self._number))
            self._number += 1
        return self._waiting.popleft()


def _in_turn(*iterators: Iterator[Request]) -> Iterator[Request]:
    """One of each, until none has any more."""
    while some := [each for iterator in iterators for each in islice(iterator, 1)]:
        yield from some
