"""Texts that a model writes itself, to train it on: answers to the user's prompts and to everyday
tasks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import cycle, islice

from edge_conflayers.engine.model import Model
from edge_conflayers.train.texts import TrainingText
from edge_conflayers.tune.parallel_texts import FinishedText, ParallelTexts, Request
from edge_conflayers.tune.task_requests import MAX_ANSWER, TaskRequests


def own_texts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    longest: int = 512,
    threads: int | None = None,
    seed: int = 0,
) -> Generator[TrainingText, None, None]:
    """Texts of a model, without an end unless nothing fits: answers to the user's prompts, over and
    over, in turn with answers to everyday tasks.

    Args:
        prompts: tokens of each; those longer than half of ``longest`` are left out.
        longest: most tokens of a text, prompt included.
        threads: CPU threads; None for the machine's physical cores.
        seed: of the sampling and of the tasks.

    Raises:
        BadInput: no memory for the texts.
    """
    with ParallelTexts(model, n_ctx=longest, threads=threads, seed=seed) as texts:
        own = [list(each) for each in prompts if texts.fits(each)]
        tasks = TaskRequests(texts, seed=seed)
        for text in texts.write(_in_turn(own, tasks)):
            if isinstance(text, FinishedText):
                tasks.finished(text)
                if text.tokens:
                    prompt = text.request.prompt
                    yield TrainingText([*prompt, *text.tokens], len(prompt))


def _in_turn(prompts: Sequence[list[int]], tasks: Iterable[Request]) -> Iterator[Request]:
    """One of each, again and again."""
    again = (Request(prompt, MAX_ANSWER) for prompt in cycle(prompts))
    others = iter(tasks)
    while some := [*islice(again, 1), *islice(others, 1)]:
        yield from some
