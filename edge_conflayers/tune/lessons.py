"""The texts that a next-state head learns from: which are written and read, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from edge_conflayers.chat import chat_tokens
from edge_conflayers.next_state.head import Floats
from edge_conflayers.next_state.training_data import TrainingData
from edge_conflayers.tune.everyday_tasks import EverydayTasks
from edge_conflayers.tune.parallel_texts import (
    FinishedText,
    ParallelTexts,
    Request,
    TrainingToken,
)

_MAX_ANSWER = 192  # tokens; not tuned
# Answers to one of the user's prompts. With some thirty prompts answered over and over, 45.5 % of
# tokens were among four guesses; with new prompts all along and the inner layer 49.3 % (1.5B, 133
# recorded Spec-Bench texts).
_ANSWERS = 4
_MISSES = 64  # tasks in a row that do not fit, after which there are no more
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
        user_texts: Sequence[Sequence[int]] = (),
        *,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        self._texts = texts
        self._model = texts.model
        self._prompts = [list(each) for each in prompts if texts.fits(each)]
        self._user_texts = user_texts
        self._answered: dict[Request, Callable[[str], None]] = {}
        self._parts: dict[Request, _Part] = {}
        self._for_tests: set[Request] = set()
        self.texts: list[FinishedText] = []
        self.learned = TrainingData(self._model.n_embd)
        self.held_out = TrainingData(self._model.n_embd)
        self.tokens = 0

    def requests(self) -> Iterator[Request]:
        """What the user gave, in turn with everyday tasks; texts from nothing instead of tasks
        where the model has no chat template to ask in."""
        of_user = _in_turn(self._answers(), self._readings())
        others = self._tasks() if self._model.chat_template is not None else self._beginnings()
        yield from _in_turn(of_user, others)

    def _answers(self) -> Iterator[Request]:
        for _ in range(_ANSWERS):
            for number, prompt in enumerate(self._prompts):
                yield self._asked(Request(prompt, _MAX_ANSWER, len(prompt)), number)

    def _readings(self) -> Iterator[Request]:
        size = self._texts.n_ctx // 2
        for number, text in enumerate(self._user_texts):
            for begin in range(0, len(text), size):
                yield self._asked(Request(text[begin : begin + size], 0, 0), number)

    def _tasks(self) -> Iterator[Request]:
        misses = 0
        for number, task in enumerate(EverydayTasks(self._seed)):
            prompt = chat_tokens(self._model, [{"role": "user", "content": task.text}])
            misses = 0 if self._texts.fits(prompt) else misses + 1
            if misses == _MISSES:
                return
            if misses == 0:
                request = self._asked(Request(prompt, _MAX_ANSWER, len(prompt)), number)
                if task.answered is not None:
                    self._answered[request] = task.answered
                yield request

    def _beginnings(self) -> Iterator[Request]:
        beginning = self._model.tokenize("") or self._model.tokenize("\n")
        if self._texts.fits(beginning):
            for number in count():
                yield self._asked(Request(beginning, _MAX_ANSWER, len(beginning)), number)

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
            answered = self._answered.pop(each.request, None)
            if answered is not None and (text := self._model.text(each.tokens).strip()):
                answered(text)
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
