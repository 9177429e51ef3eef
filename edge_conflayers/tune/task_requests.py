"""Requests answers to everyday tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge_conflayers.chat import chat_tokens
from edge_conflayers.tune.everyday_tasks import EverydayTasks
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request

MAX_ANSWER = 192
"""Most tokens of an answer; not tuned."""

_MISSES = 64  # tasks in a row that do not fit, after which there are no more


class TaskRequests:
    """Requests without end: everyday tasks, or texts from nothing where the model has no chat
    template to ask in. There are none if they do not fit.

    Args:
        texts: writes the answers.
        seed: of the tasks.
    """

    def __init__(self, texts: ParallelTexts, *, seed: int = 0) -> None:
        self._texts = texts
        self._model = texts.model
        self._seed = seed
        self._answered: dict[Request, Callable[[str], None]] = {}

    def __iter__(self) -> Iterator[Request]:
        return self._tasks() if self._model.chat_template is not None else self._beginnings()

    def _tasks(self) -> Iterator[Request]:
        misses = 0
        for task in EverydayTasks(self._seed):
            prompt = chat_tokens(self._model, [{"role": "user", "content": task.text}])
            misses = 0 if self._texts.fits(prompt) else misses + 1
            if misses == _MISSES:
                return
            if misses == 0:
                request = Request(prompt, MAX_ANSWER, len(prompt))
                if task.answered is not None:
                    self._answered[request] = task.answered
                yield request

    def _beginnings(self) -> Iterator[Request]:
        beginning = self._model.tokenize("") or self._model.tokenize("\n")
        while self._texts.fits(beginning):
            yield Request(beginning, MAX_ANSWER, len(beginning))

    def finished(self, text: FinishedText) -> None:
        """Takes in a text, whoever asked for it: later tasks may be about it."""
        answered = self._answered.pop(text.request, None)
        if answered is not None and (answer := self._model.text(text.tokens).strip()):
            answered(answer)
