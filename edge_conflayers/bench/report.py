"""What a benchmark measured: each method's totals, and its comparison with plain decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import median
from typing import TYPE_CHECKING, Any

from edge_conflayers.bench.copied import copied_tokens

if TYPE_CHECKING:
    from edge_conflayers.bench.runner import Generation, Task, TaskRuns
    from edge_conflayers.engine.sampling import SamplerSettings

REFERENCE = "plain"
"""The method that others are compared with."""

UPSTREAM = "upstream"
"""Plain decoding by upstream's own library."""

UPSTREAM_LOOKUP = "upstream-lookup"
"""The same with llama-cpp-python's prompt lookup."""

_TOTALS = (
    "tokens",
    "seconds",
    "rounds",
    "drafted",
    "accepted",
    "prompt_seconds",
    "begin_seconds",
    "draft_seconds",
    "verify_seconds",
    "search_seconds",
    "sample_seconds",
)
_POSITIONS = ("drafted_at", "accepted_at")
_CATEGORY_KEYS = (
    "tokens",
    "seconds",
    "copied",
    "tokens_per_second",
    "speedup",
    "lowest_speedup",
    "speedup_by_repeat",
    "acceptance_rate",
    "tokens_per_round",
    "identical",
)


def median_run(runs: Sequence[Generation]) -> Generation:
    """The run of median time; of an even number, the quicker of the middle two. It is one run, not
    a median of each figure, so that its figures add up."""
    return sorted(runs, key=lambda run: run.stats.seconds)[(len(runs) - 1) // 2]


def first_difference(runs: Sequence[Generation], reference: Sequence[int]) -> int | None:
    """Index of the first token at which a run differs from the reference; None if none does."""
    for run in runs:
        if list(run.tokens) != list(reference):
            pairs = zip(run.tokens, reference, strict=False)
            shorter = min(len(run.tokens), len(reference))
            return next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), shorter)
    return None


def make_report(
    head: Mapping[str, Any],
    results: Sequence[TaskRuns],
    *,
    complete: bool,
    max_tokens: int,
    sampling: SamplerSettings,
) -> dict[str, Any]:
    """The report as JSON keeps it.

    For each method:

    - ``tokens``, ``seconds`` and the like are sums over the prompts' median runs;
    - ``speedup`` and ``speedup_over_upstream`` are ratios of tokens per second;
    - ``lowest_speedup`` is that of the slowest text, among those of ``max_tokens`` tokens;
    - ``speedup_by_repeat`` is the speed-up of each repeat by itself;
    - ``drafted_at`` and ``accepted_at`` are as in ``Stats``;
    - ``identical`` says whether every run of every prompt has the tokens of ``plain``'s first run.

    A prompt's ``all_speedups`` are the ratios of two runs of one repeat, and its ``speedup`` is
    their median: a machine whose speed changes affects it less than it affects times. ``copied``
    is the share of a text, in tokens, that its prompt has as well (``copied_tokens``).
    ``attention_dropped`` and ``mlp_dropped`` are the layers that drafts left out at the end of the
    text, ``blocks`` those that a bridge replaced, from begin to end, and ``exit_layer`` is where
    they left the model; null where no draft did. What needs a method that was not run is null.
    ``categories`` has the same figures for the prompts of each category; prompts without one are
    in none.

    Args:
        head: where it was measured, as ``about`` gives it.
        results: at least one prompt, each with at least one run of every method.
        complete: whether these are all the runs that were asked for.
        max_tokens: most tokens of a text.
        sampling: how tokens were drawn.
    """
    prompts = [_prompt(result, max_tokens, sampling) for result in results]
    pairs = list(zip(results, prompts, strict=True))
    names = dict.fromkeys(prompt["category"] for prompt in prompts if prompt["category"])
    categories = {
        name: {
            method: {key: total[key] for key in _CATEGORY_KEYS}
            for method, total in _compare(
                [pair for pair in pairs if pair[1]["category"] == name]
            ).items()
        }
        for name in names
    }
    return {
        **head,
        "complete": complete,
        "methods": _compare(pairs),
        "categories": categories,
        "prompts": prompts,
    }


def _compare(pairs: Sequence[tuple[TaskRuns, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each method's totals over some prompts.

    Args:
        pairs: the runs of each prompt, and the report that ``_prompt`` made of them.
    """
    prompts = [prompt for _, prompt in pairs]
    methods = {
        name: _total([median_run(result.runs[name]) for result, _ in pairs])
        for name in pairs[0][0].runs
    }
    for name, total in methods.items():
        total["speedup"] = _over(total, methods.get(REFERENCE))
        total["lowest_speedup"] = min(_speedups_of_full_length(prompts, name), default=None)
        total["speedup_by_repeat"] = _by_repeat([result for result, _ in pairs], name)
        total["speedup_over_upstream"] = _over(total, methods.get(UPSTREAM))
        verdicts = [prompt["methods"][name]["identical"] for prompt in prompts]
        total["identical"] = None if None in verdicts else all(verdicts)
        texts = [prompt["methods"][name] for prompt in prompts]
        copied = sum(text["copied"] * text["tokens"] for text in texts)
        total["copied"] = copied / total["tokens"] if total["tokens"] else 0.0
    return methods


def _speedups_of_full_length(prompts: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A method's speed-ups on texts of full length; shorter ones have too few steps to compare."""
    runs = ((prompt["methods"][name], prompt["max_tokens"]) for prompt in prompts)
    return [
        run["speedup"] for run, full in runs if run["tokens"] == full and run["speedup"] is not None
    ]


def _by_repeat(results: Sequence[TaskRuns], name: str) -> list[float]:
    """A method's speed-up in each repeat, over the prompts that both methods have finished in it;
    empty without ``plain``."""
    pairs = [
        zip(result.runs[name], result.runs.get(REFERENCE, ()), strict=False) for result in results
    ]
    speedups = []
    for repeat in zip_longest(*pairs):
        total, other = (_total(list(runs)) for runs in zip(*filter(None, repeat), strict=True))
        ratio = _over(total, other)
        if ratio is not None:
            speedups.append(ratio)
    return speedups


def _total(runs: Sequence[Generation]) -> dict[str, Any]:
    sums = {name: sum(getattr(run.stats, name) for run in runs) for name in _TOTALS}
    drafted, accepted = sums.pop("drafted"), sums.pop("accepted")
    rounds, seconds = sums["rounds"], sums["seconds"]
    return {
        **sums,
        **{name: _summed([getattr(run.stats, name) for run in runs]) for name in _POSITIONS},
        "tokens_per_second": sums["tokens"] / seconds if seconds > 0 else 0.0,
        "tokens_per_round": sums["tokens"] / rounds if rounds else 0.0,
        "acceptance_rate": accepted / drafted if drafted else None,
    }


def _summed(counts: Sequence[Sequence[int]]) -> list[int]:
    """Sums by position of lists that need not be of one length."""
    return [sum(at) for at in zip_longest(*counts, fillvalue=0)]


def _over(total: Mapping[str, Any], other: Mapping[str, Any] | None) -> float | None:
    if other is None or not other["tokens_per_second"]:
        return None
    return float(total["tokens_per_second"] / other["tokens_per_second"])


def _prompt(result: TaskRuns, max_tokens: int, sampling: SamplerSettings) -> dict[str, Any]:
    reference = result.runs.get(REFERENCE, ())
    return {
        "id": result.task.prompt.id,
        "category": result.task.prompt.category,
        "prompt_tokens": len(result.task.tokens),
        "max_tokens": max_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "methods": {
            name: _runs(result.task, runs, reference) for name, runs in result.runs.items()
        },
    }


def _runs(
    task: Task, runs: Sequence[Generation], reference: Sequence[Generation]
) -> dict[str, Any]:
    chosen = median_run(runs)
    n_tokens = len(chosen.tokens)
    differs = first_difference(runs, reference[0].tokens) if reference else None
    ratios = [
        run.stats.tokens_per_second / other.stats.tokens_per_second
        for run, other in zip(runs, reference, strict=False)
        if other.stats.tokens_per_second > 0
    ]
    return {
        **_total([chosen]),
        "copied": copied_tokens(task.tokens, chosen.tokens) / n_tokens if n_tokens else 0.0,
        **_dropped(chosen),
        "finish_reason": chosen.stats.finish_reason,
        "speedup": median(ratios) if ratios else None,
        "all_speedups": ratios,
        "identical": differs is None if reference else None,
        "first_difference": differs,
        "all_seconds": [run.stats.seconds for run in runs],
    }


def _dropped(run: Generation) -> dict[str, Any]:
    """The layers that a text's drafts did without."""
    told = run.stats.drafter
    by_layers = told.get("rounds_by", {"layers": run.stats.drafted}).get("layers", 0)
    names = ("attention_dropped", "mlp_dropped", "blocks", "exit_layer")
    return {name: told.get(name) if by_layers else None for name in names}
