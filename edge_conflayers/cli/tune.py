"""``edge-conflayers tune``: a next-state head, and skip sets for the kinds of prompts that will
come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.options import (
    count_option,
    device_options,
    fresh_option,
    kernels_option,
    model_argument,
    predict_option,
    prompts_option,
    raw_option,
)
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.terminal import print_table

if TYPE_CHECKING:
    from edge_conflayers.bench.workloads import Prompt
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model import Model
    from edge_conflayers.layer_search.skip_sets import SkipSet
    from edge_conflayers.learned import Learned
    from edge_conflayers.tune.skip_sets import Progress
    from edge_conflayers.tune.teaching import Taught

_UNNAMED = "prompts"
_TICKS = 10  # of the progress bar, per second
_MOST_SECONDS = 7 * 24 * 3600
_TEACHING = 0.5  # of the budget


@click.command()
@model_argument
@prompts_option(
    help="JSON lines or text as for `bench`; each category is a kind.  [default: short ones of five"
    " kinds]",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    help="Seconds in all, besides measuring what steps cost. A half teaches the next-state head"
    " (unless steps take so little that it would not pay), the rest searches for layers.",
)
@count_option("--limit", default=3, help="Most prompts of a kind.")
@predict_option(96, least=32, help="Most tokens to write for each prompt.")
@raw_option
@fresh_option("Forget all that was learned about this model, its next-state head included.")
@device_options
@kernels_option
def tune(
    model: str,
    prompts_file: Path | None,
    budget: float,
    limit: int,
    predict: int,
    raw: bool,
    fresh: bool,
    threads: int | None,
    gpu_layers: int,
    kernels: KernelChoice | None,
) -> None:
    """Make MODEL faster: teach it to foresee tokens by texts that it writes itself, and search for
    the layers that are best dropped in drafts, for each kind of prompts.

    What is found is kept for `run` on this machine. Ctrl-C keeps the best so far.
    """
    from edge_conflayers import machine
    from edge_conflayers.costs.measure import measure_costs, session_to_measure_in
    from edge_conflayers.drafters.draft_vocabulary import (
        DraftVocabulary,
        measure_savings,
        typical_size,
    )
    from edge_conflayers.drafters.next_state import PAYS_FROM
    from edge_conflayers.engine.model import Model
    from edge_conflayers.learned import Learned
    from edge_conflayers.limits import check_number
    from edge_conflayers.tune.skip_sets import check_layers_can_be_dropped
    from edge_conflayers.tune.skip_sets import tune as tune_kinds

    check_number("budget", budget, 1, _MOST_SECONDS)
    texts = _texts(prompts_file, limit)
    path = find_model(model)
    threads = machine.threads_to_use(threads)
    with Model(path, gpu_layers=gpu_layers, kernels=kernels) as loaded:
        check_layers_can_be_dropped(loaded)
        every = [each for some in texts.values() for each in some]
        prompts = {kind: _tokens(loaded, some, raw) for kind, some in texts.items()}
        learned = Learned(loaded, threads)
        if fresh:
            learned.forget()
        sets = learned.skip_sets()
        interrupted = False
        taught: Taught | None = None
        without_text: list[str] = []
        try:
            if sets.costs is None or sets.savings is None:  # `run` measures only some, quickly
                click.echo("measuring what steps cost", err=True)
                with session_to_measure_in(loaded, threads) as session:
                    sets.costs = measure_costs(session, quick=False)
                    sets.savings = measure_savings(session, DraftVocabulary(loaded))
                learned.keep_skip_sets(sets)
            if sets.costs.t1(0) >= PAYS_FROM:
                seconds = budget * _TEACHING
                taught = _teach(learned, loaded, every, seconds, threads, raw=raw)
                if taught is not None and taught.interrupted:
                    raise KeyboardInterrupt
                budget -= seconds
            savings = sets.savings or {}
            size = typical_size(savings, DraftVocabulary(loaded), sets.costs, 0)
            with _Bar("searching", budget) as bar:
                without_text = tune_kinds(
                    loaded,
                    prompts,
                    sets,
                    sets.costs,
                    budget=budget,
                    max_tokens=predict,
                    saved_seconds=savings.get(size, 0.0),
                    threads=threads,
                    on_progress=lambda progress: bar.show(progress.seconds, _best(progress)),
                    on_better=lambda: learned.keep_skip_sets(sets),
                )
        except KeyboardInterrupt:
            interrupted = True
    _show([each for each in sets if each.kind in prompts])
    if taught is not None:
        _show_taught(taught)
    for kind in without_text:
        click.echo(f"{kind}: too little text to search over; give longer or other prompts")
    if interrupted:
        click.echo("interrupted: what was found so far is kept", err=True)
        sys.exit(130)


def _texts(prompts_file: Path | None, limit: int) -> dict[str, list[Prompt]]:
    """Prompts by kind, in the order of the file."""
    from edge_conflayers.bench import workloads
    from edge_conflayers.tune.prompts import TUNING_PROMPTS

    if prompts_file is not None:
        prompts = workloads.load(prompts_file)
    else:
        prompts = [
            workloads.Prompt(f"{kind} {i}", kind, text)
            for kind, texts in TUNING_PROMPTS.items()
            for i, text in enumerate(texts)
        ]
    kinds: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        kinds.setdefault(prompt.category or _UNNAMED, []).append(prompt)
    return {kind: workloads.spread(some, limit) for kind, some in kinds.items()}


def _tokens(model: Model, prompts: Iterable[Prompt], raw: bool) -> list[tuple[int, ...]]:
    from edge_conflayers.bench.runner import make_task

    return [make_task(model, prompt, raw=raw).tokens for prompt in prompts]


def _teach(
    learned: Learned,
    model: Model,
    prompts: Sequence[Prompt],
    seconds: float,
    threads: int,
    *,
    raw: bool,
) -> Taught | None:
    """Teaches the next-state head, and keeps it unless the one that there was foresees more."""
    from edge_conflayers.errors import BadInput
    from edge_conflayers.tune.teaching import teach

    known = learned.load_head()
    try:
        with _Bar("teaching", seconds) as bar:
            taught = teach(
                model,
                _tokens(model, prompts, raw),
                known=known,
                seconds=seconds,
                threads=threads,
                on_progress=lambda progress: bar.show(
                    progress.seconds, f"{progress.tokens} tokens"
                ),
            )
    except BadInput as error:
        click.echo(f"no next-state head: {error}", err=True)
        return None
    if taught is None:
        click.echo("no next-state head: too little text; give a larger --budget", err=True)
    elif taught.head is not known:
        learned.save_head(taught.head)
    return taught


def _show_taught(taught: Taught) -> None:
    first, among = taught.foreseen
    click.echo(
        f"next-state head: of the tokens after the next one it foresees {first:.0%} in one guess"
        f" and {among:.0%} in four (texts of {taught.tokens} tokens)"
    )


class _Bar:
    """How much of the time is spent, and what it brought."""

    def __init__(self, what: str, seconds: float) -> None:
        self._label = ""
        self._bar: Any = click.progressbar(
            length=int(seconds * _TICKS),
            label=what,
            show_pos=False,
            item_show_func=lambda _: self._label,
            file=sys.stderr,
        )

    def show(self, seconds: float, label: str) -> None:
        self._label = label
        done = min(int(seconds * _TICKS), self._bar.length or 0)
        self._bar.update(done - self._bar.pos)

    def __enter__(self) -> _Bar:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.render_finish()


def _best(progress: Progress) -> str:
    speed = "" if progress.best is None else f", best {progress.best.found.prediction.speed:.2f}"
    return f"{progress.kind}: {progress.judged} sets{speed}"


def _show(found: Sequence[SkipSet]) -> None:
    if not found:
        return
    header = (
        *("kind", "attention dropped", "MLP dropped", "accepted", "c", "stop under", "at most"),
        "predicted speed-up",
    )
    rows = []
    for each in found:
        mask, prediction = each.found.mask, each.found.prediction
        rows.append(
            (
                each.kind,
                _ranges(mask.attention),
                _ranges(mask.mlp),
                f"{prediction.acceptance:.0%}",
                f"{each.found.c:.2f}",
                f"{prediction.stop_probability:.2f}",
                str(prediction.max_draft),
                f"{prediction.speed:.2f}",
            )
        )
    print_table(header, rows)
    if all(each.found.prediction.speed <= 1 for each in found):
        click.echo("plain decoding is faster than drafting with any set that was tried")


def _ranges(layers: Iterable[int]) -> str:
    """Layers as "3-5,9"; "none" if there are none."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(parts) or "none"
