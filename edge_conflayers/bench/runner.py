"""Runs methods over prompts, interleaved, so that a slow minute hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_conflayers.bench.workloads import Prompt
from edge_conflayers.chat import TemplateOptions, prompt_tokens
from edge_conflayers.decoding.speculate import generate
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.sampling import Sampler, SamplerSettings
from edge_conflayers.engine.session import kv_cache
from edge_conflayers.errors import BadInput
from edge_conflayers.methods import Method, MethodOptions, make_method

_WARM_UP_PROMPT = 16  # tokens read to warm up; not tuned
_WARM_UP_TOKENS = 4  # tokens written to warm up; not tuned


@dataclass(frozen=True)
class Task:
    """A prompt as the model reads it."""

    prompt: Prompt
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Generation:
    """One text and its statistics; ``stats.seconds`` excludes reading the prompt."""

    tokens: tuple[int, ...]
    stats: Stats


@dataclass
class TaskRuns:
    """The texts that every method wrote for one prompt, one for each repeat."""

    task: Task
    runs: dict[str, list[Generation]] = field(default_factory=dict)


class Engine(Protocol):
    """A method that writes texts."""

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        """Writes one text in a fresh session."""
        ...

    def restart(self) -> None:
        """Forgets what was learned from texts."""
        ...

    def close(self) -> None: ...


class LocalEngine:
    """A method of this package, in this process.

    Args:
        name: as in ``methods.METHODS``.
        n_ctx, threads: as for ``Session``.
        options: as for ``make_method``.
        learned: the state that the method starts from, and restarts from; None for none.

    Raises:
        BadInput: as ``make_method`` and ``Method.resume`` do.
    """

    def __init__(
        self,
        name: str,
        model: LanguageModel,
        sampling: SamplerSettings,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        options: MethodOptions | None = None,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = name
        self._model = model
        self._sampling = sampling
        self._n_ctx = n_ctx
        self._threads = threads
        self._options = options
        self._learned = learned
        self._method = self._make_method()

    def _make_method(self) -> Method:
        method = make_method(self._name, self._model, self._options)
        if self._learned is not None:
            method.resume(self._learned)
        return method

    def restart(self) -> None:
        self._method.close()
        self._method = self._make_method()

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        stats = Stats()
        with (
            self._model.open_session(n_ctx=self._n_ctx, threads=self._threads) as session,
            closing(Sampler(self._model, self._sampling)) as sampler,
        ):
            self._method.prepare(session)
            drafter = self._method.drafter
            written = generate(
                session, prompt, sampler, drafter=drafter, max_tokens=max_tokens, stats=stats
            )
            tokens = tuple(written)
        return Generation(tokens, stats)

    def close(self) -> None:
        self._method.close()


def make_task(
    model: LanguageModel,
    prompt: Prompt,
    *,
    raw: bool,
    system: str | None = None,
    template: TemplateOptions | None = None,
) -> Task:
    """Tokenizes a prompt, in the model's chat template unless ``raw`` or it has none.

    Args:
        system, template: as for ``chat.prompt_tokens``.

    Raises:
        BadInput: the template fails, or what is asked for does not go together.
    """
    tokens = prompt_tokens(model, prompt.text, system=system, raw=raw, options=template)
    return Task(prompt, tuple(tokens))


def context_for(
    model: LanguageModel, tasks: Sequence[Task], max_tokens: int, wanted: int | None
) -> int:
    """The context size that every task fits in (``kv_cache.context_for``).

    Args:
        max_tokens: most tokens of a text.
        wanted: the size that the user gave, if any.

    Raises:
        BadInput: a prompt and its text do not fit.
    """
    longest = max(tasks, key=lambda task: len(task.tokens))
    needed = len(longest.tokens) + max_tokens
    size = kv_cache.context_for(model, len(longest.tokens), max_tokens, wanted)
    if needed > size:
        raise BadInput(
            f"prompt {longest.prompt.id} has {len(longest.tokens)} tokens and -n asks for"
            f" {max_tokens} more, but the context holds {size}; give a smaller -n, a larger -c or"
            " other prompts"
        )
    return size


def warm_up(engines: Mapping[str, Engine], task: Task) -> None:
    """Brings the weights into memory and builds graphs, then forgets what was learned."""
    for engine in engines.values():
        engine.generate(task.tokens[:_WARM_UP_PROMPT], _WARM_UP_TOKENS)
        engine.restart()


def run(
    engines: Mapping[str, Engine],
    tasks: Sequence[Task],
    *,
    max_tokens: int,
    repeat: int = 1,
    fresh: bool = False,
    on_progress: Callable[[int, int, Mapping[str, Generation]], None] | None = None,
) -> tuple[list[TaskRuns], bool]:
    """Runs all engines on each prompt before the next one, in rotating order.

    What an engine learns is carried from prompt to prompt. Each repeat starts without it, so that
    repeats do the same work and can be compared.

    Args:
        max_tokens: most tokens of a text.
        repeat: how often everything is run.
        fresh: forget before every prompt instead.
        on_progress: called with prompts done, prompts in all (times repeats), and the last runs.

    Returns:
        The prompts that every engine has finished at least once, and whether nothing is missing:
        False after Ctrl-C.
    """
    results = [TaskRuns(task, {name: [] for name in engines}) for task in tasks]
    names = list(engines)
    done = 0
    try:
        for turn in range(repeat):
            for engine in engines.values():
                engine.restart()
            for index, result in enumerate(results):
                first = (index + turn) % len(names)
                cell = {}
                for name in names[first:] + names[:first]:
                    if fresh:
                        engines[name].restart()
                    cell[name] = engines[name].generate(result.task.tokens, max_tokens)
                for name, generation in cell.items():
                    result.runs[name].append(generation)
                done += 1
                if on_progress is not None:
                    on_progress(done, repeat * len(tasks), cell)
    except KeyboardInterrupt:
        pass
    finished = [result for result in results if all(result.runs.values())]
    return finished, done == repeat * len(tasks)
