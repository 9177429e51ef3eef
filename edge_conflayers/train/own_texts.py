"""Texts that a model writes itself, to train it on: answers to the user's prompts and to everyday
tasks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import count

from edge_conflayers.chat import chat_tokens
from edge_conflayers.engine.model import Model
from edge_conflayers.train.texts import TrainingText
from edge_conflayers.tune.everyday_tasks import EverydayTasks
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request

_MAX_ANSWER = 192  # tokens; not tuned


def own_texts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    longest: int = 512,
    threads: int | None = None,
    seed: int = 0,
) -> Generator[TrainingText, None, None]:
    """Texts of a model, without an end: answers to the user's prompts, over and over, in turn with
    answers to everyday tasks. A model without a chat template continues texts from nothing instead
    of tasks.

    Args:
        prompts: tokens of each; those longer than half of ``longest`` are left out.
        longest: most tokens of a text, prompt included.
        threads: CPU threads; None for the machine's physical cores.
        seed: of the sampling and of the tasks.

    Raises:
        BadInput: no memory for the texts.
    """
    answered: dict[Request, Callable[[str], None]] = {}
    with ParallelTexts(model, n_ctx=longest, threads=threads, seed=seed) as texts:
        own = [list(each) for each in prompts if texts.fits(each)]
        for text in texts.write(_requests(model, own, answered, seed)):
            if not isinstance(text, FinishedText):
                continue
            if (told := answered.pop(text.request, None)) is not None:
                told(model.text(text.tokens).strip())
            if text.tokens:
                prompt = text.request.prompt
                yield TrainingText([*prompt, *text.tokens], len(prompt))


def _requests(
    model: Model,
    prompts: Sequence[list[int]],
    answered: dict[Request, Callable[[str], None]],
    seed: int,
) -> Iterator[Request]:
    tasks = _tasks(model, answered, seed)
    for number in count():
        if prompts:
            yield Request(prompts[number % len(prompts)], _MAX_ANSWER)
        yield next(tasks)


def _tasks(
    model: Model, answered: dict[Request, Callable[[str], None]], seed: int
) -> Iterator[Request]:
    if model.chat_template is None:
        beginning = model.tokenize("") or model.tokenize("\n")
        while True:
            yield Request(beginning, _MAX_ANSWER)
    for task in EverydayTasks(seed):
        prompt = chat_tokens(model, [{"role": "user", "content": task.text}])
        request = Request(prompt, _MAX_ANSWER)
        if task.answered is not None:
            answered[request] = task.answered
        yield request
