"""What a benchmark measured: totals, comparisons, JSON, the rows of its tables."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from edge_conflayers import machine, profiles
from edge_conflayers.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from edge_conflayers.bench.runner import Generation, TaskRuns
    from edge_conflayers.engine.sampling import SamplerSettings

# An installed package carries the pin inside; a checkout has it beside the package.
_PACKAGE = Path(__file__).resolve().parent.parent
_UPSTREAM_FILES = (_PACKAGE / "upstream.toml", _PACKAGE.parent / "native" / "upstream.toml")

REFERENCE = "plain"
UPSTREAM = "upstream"
UPSTREAM_LOOKUP = "upstream-lookup"
_TOTALS = (
    "tokens",
    "seconds",
    "rounds",
    "drafted",
    "accepted",
    "draft_seconds",
    "verify_seconds",
    "search_seconds",
)
_CATEGORY_KEYS = (
    "tokens",
    "seconds",
    "tokens_per_second",
    "speedup",
    "lowest_speedup",
    "acceptance_rate",
    "tokens_per_round",
    "identical",
)


def about(model: Path, threads: int) -> dict[str, Any]:
    """What was measured where, for the head of a JSON report."""
    return {
        "model": model.name,
        "machine": {
            "cpu": profiles.cpu_name(),
            "cores": machine.default_threads(),
            "logical_cpus": os.cpu_count(),
            "memory_bytes": _memory_bytes(),
            "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "threads": threads,
        "upstream_version": upstream_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def upstream_version() -> str:
    """The pinned upstream release, such as "llama-cpp-python 0.3.36"."""
    file = next(path for path in _UPSTREAM_FILES if path.is_file())
    pin = tomllib.loads(file.read_text(encoding="utf-8"))
    return f"{pin['package']} {pin['version']}"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def median_run(runs: Sequence[Generation]) -> Generation:
    """The run of median time (of an even number the quicker of the middle two), whole, so that its
    parts add up."""
    return sorted(runs, key=lambda run: run.stats.seconds)[(len(runs) - 1) // 2]


def first_difference(runs: Sequence[Generation], reference: Sequence[int]) -> int | None:
    """Index of the first token at which a run leaves the reference; None if none does."""
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

    Per method: tokens, seconds and the like are sums over the prompts' median runs;
    ``speedup`` and ``speedup_over_upstream`` are ratios of tokens per second; ``lowest_speedup`` is
    that of the slowest text among those of ``max_tokens`` tokens (shorter ones have a few steps);
    ``identical`` says whether every run of every prompt has the tokens of ``plain``'s first run. A
    prompt's ``speedup`` is the median of its repeats' ratios, each of two runs of one repeat, on
    which a machine that is now fast, now slow weighs less than on their times. What needs a method
    that was not run is null. ``categories`` has the same for the prompts of each category; those
    that have none are in no category.

    Args:
        results: at least one prompt, each with at least one run of every method.
        complete: whether these are all the runs that were asked for.
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
    """Each method's totals over some prompts, given as runs and as ``_prompt`` made of them."""
    prompts = [prompt for _, prompt in pairs]
    methods = {
        name: _total([median_run(result.runs[name]) for result, _ in pairs])
        for name in pairs[0][0].runs
    }
    for name, total in methods.items():
        total["speedup"] = _over(total, methods.get(REFERENCE))
        total["lowest_speedup"] = min(_speedups_of_full_length(prompts, name), default=None)
        total["speedup_over_upstream"] = _over(total, methods.get(UPSTREAM))
        verdicts = [prompt["methods"][name]["identical"] for prompt in prompts]
        total["identical"] = None if None in verdicts else all(verdicts)
    return methods


def _speedups_of_full_length(prompts: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    runs = ((prompt["methods"][name], prompt["max_tokens"]) for prompt in prompts)
    return [
        run["speedup"] for run, full in runs if run["tokens"] == full and run["speedup"] is not None
    ]


def _total(runs: Sequence[Generation]) -> dict[str, Any]:
    sums = {name: sum(getattr(run.stats, name) for run in runs) for name in _TOTALS}
    drafted, accepted = sums.pop("drafted"), sums.pop("accepted")
    rounds, seconds = sums["rounds"], sums["seconds"]
    return {
        **sums,
        "tokens_per_second": sums["tokens"] / seconds if seconds > 0 else 0.0,
        "tokens_per_round": sums["tokens"] / rounds if rounds else 0.0,
        "acceptance_rate": accepted / drafted if drafted else None,
    }


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
        "methods": {name: _runs(runs, reference) for name, runs in result.runs.items()},
    }


def _runs(runs: Sequence[Generation], reference: Sequence[Generation]) -> dict[str, Any]:
    chosen = median_run(runs)
    differs = first_difference(runs, reference[0].tokens) if reference else None
    ratios = [
        run.stats.tokens_per_second / other.stats.tokens_per_second
        for run, other in zip(runs, reference, strict=False)
        if other.stats.tokens_per_second > 0
    ]
    return {
        **_total([chosen]),
        "prompt_seconds": chosen.stats.prompt_seconds,
        "begin_seconds": chosen.stats.begin_seconds,
        "finish_reason": chosen.stats.finish_reason,
        "speedup": median(ratios) if ratios else None,
        "identical": differs is None if reference else None,
        "first_difference": differs,
        "all_seconds": [run.stats.seconds for run in runs],
    }


HEADER = (
    "method",
    "tokens",
    "seconds",
    "tokens/s",
    "x plain",
    "slowest x",
    "x upstream",
    "tokens/round",
    "accepted",
    "draft s",
    "verify s",
    "search s",
    "identical",
)


def table_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A report's methods as rows under ``HEADER``."""
    return [
        (
            name,
            str(total["tokens"]),
            f"{total['seconds']:.2f}",
            f"{total['tokens_per_second']:.1f}",
            _number(total["speedup"], ".2f"),
            _number(total["lowest_speedup"], ".2f"),
            _number(total["speedup_over_upstream"], ".2f"),
            f"{total['tokens_per_round']:.2f}",
            _number(total["acceptance_rate"], ".0%"),
            f"{total['draft_seconds']:.2f}",
            f"{total['verify_seconds']:.2f}",
            f"{total['search_seconds']:.2f}",
            "-" if total["identical"] is None else "yes" if total["identical"] else "NO",
        )
        for name, total in report["methods"].items()
    ]


def category_header(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What the columns of ``category_rows`` hold."""
    names = [name for name in report["methods"] if name != REFERENCE]
    if REFERENCE in report["methods"]:
        return ("category", f"{REFERENCE} tokens/s", *(f"{name} x" for name in names))
    return ("category", *(f"{name} tokens/s" for name in names))


def category_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A report's categories as rows under ``category_header``: each method's speed over ``plain``,
    and its own if that was not run."""
    rows = []
    for category, methods in report["categories"].items():
        others = [total for name, total in methods.items() if name != REFERENCE]
        if REFERENCE in methods:
            cells = [f"{methods[REFERENCE]['tokens_per_second']:.1f}"]
            cells += [_number(total["speedup"], ".2f") for total in others]
        else:
            cells = [f"{total['tokens_per_second']:.1f}" for total in others]
        rows.append((category, *cells))
    return rows


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def check_writable(path: Path) -> None:
    """Finds out before hours of measuring whether the result can be written.

    Raises:
        BadInput: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all.

    Raises:
        BadInput: the file cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            _usual_permissions(name)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def _usual_permissions(name: str) -> None:
    """Those of any new file; mkstemp's file is for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path} cannot be written ({error.strerror}); give another --json file")
