"""``edge-conflayers tune``: teaches a next-state head and finds skip sets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    count_option,
    device_options,
    fresh_option,
    kernels_option,
    model_argument,
    predict_option,
    prompts_option,
    provider_option,
    raw_option,
)
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.stage_bars import StageBars
from edge_conflayers.cli.taught import show_taught
from edge_conflayers.cli.terminal import print_table
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.bench.workloads import Prompt
    from edge_conflayers.bridges.bridge import Bridges
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions
    from edge_conflayers.layer_search.skip_sets import SkipSet
    from edge_conflayers.tune.teach_exits import TaughtResult
    from edge_conflayers.tune.tuning import Progress

_TICKS = 10  # steps of a progress bar in a second
_LONGEST = 7 * 24 * 3600  # seconds


@click.command()
@model_argument
@prompts_option(
    help="JSON lines or text as for `bench`: prompts to learn to answer. Each category is a kind"
    " that layers are searched for.  [default: everyday tasks]",
)
@click.option(
    "--texts",
    "texts_path",
    type=click.Path(path_type=Path),
    help="A text file, or a folder of text or code, to learn from as well.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    help="Seconds in all, besides measuring what steps cost: a minute to a night. Most of it"
    " teaches the next-state head (unless steps take so little that it would not pay), the rest"
    " searches for layers.",
)
@count_option("--limit", default=3, help="Most prompts of a kind that layers are searched with.")
@predict_option(96, least=32, help="Most tokens to write for each prompt.")
@raw_option
@click.option(
    "--exits",
    is_flag=True,
    help="Teach the early exits of the method dssd with the whole budget, and do nothing else.",
)
@fresh_option(
    "Forget all that was learned about this model, its next-state head and taught exits included."
)
@device_options
@model_options
@kernels_option
@provider_option
def tune(
    model: str,
    prompts_file: Path | None,
    texts_path: Path | None,
    budget: float,
    limit: int,
    predict: int,
    raw: bool,
    exits: bool,
    fresh: bool,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    provider: str | None,
) -> None:
    """Make MODEL faster: teach it to foresee its own tokens, by its answers to your prompts and to
    everyday tasks, and search for the layers that are best dropped in drafts.

    What is found is kept for `run` on this machine. Ctrl-C keeps the best so far.
    """
    from edge_conflayers import machine
    from edge_conflayers.bench import workloads
    from edge_conflayers.bench.runner import make_task
    from edge_conflayers.limits import check_number
    from edge_conflayers.onnx.opening import open_model
    from edge_conflayers.tune import tuning
    from edge_conflayers.tune.user_texts import read_user_texts

    check_number("budget", budget, 1, _LONGEST)
    threads = machine.threads_to_use(threads)
    own = [] if prompts_file is None else workloads.load(prompts_file)
    user_texts = [] if texts_path is None else read_user_texts(texts_path)
    path = find_model(model)
    with (
        open_model(
            path,
            gpu_layers=gpu_layers,
            kernels=kernels,
            provider=provider,
            threads=threads,
            options=options,
        ) as loaded,
        _Bars() as bars,
    ):
        to_teach = [make_task(loaded, prompt, raw=raw).tokens for prompt in own]
        to_read = map(loaded.tokenize, user_texts)  # as far as there is time to read them
        if exits:
            result = tuning.tune_exits(
                *(loaded, to_teach, to_read),
                budget=budget,
                threads=threads,
                fresh=fresh,
                on_progress=bars.show,
            )
            _show_exits(result)
            return
        tuned = tuning.tune(
            loaded,
            {
                kind: [make_task(loaded, prompt, raw=raw).tokens for prompt in prompts]
                for kind, prompts in workloads.by_category(own or _default(), limit).items()
            },
            to_teach=to_teach,
            user_texts=to_read,
            budget=budget,
            max_tokens=predict,
            threads=threads,
            fresh=fresh,
            on_progress=bars.show,
        )
    if tuned.no_head:
        click.echo(f"no next-state head: {tuned.no_head}", err=True)
    _show_sets(tuned.sets)
    if tuned.taught is not None:
        show_taught(tuned.taught)
    if tuned.bridges is not None:
        _show_bridges(tuned.bridges)
    for kind in tuned.without_text:
        click.echo(f"{kind}: too little text to search over; give longer or other prompts")
    if tuned.interrupted:
        click.echo("interrupted: what was found so far is kept", err=True)
        sys.exit(130)


def _show_bridges(bridges: Bridges) -> None:
    (begin, end), speed = bridges.blocks[0], bridges.prediction.speed
    click.echo(f"bridge: layers {begin} to {end - 1} replaced, predicted {speed:.2f} over plain")


def _default() -> list[Prompt]:
    """Prompts to search layers with."""
    from edge_conflayers.bench.workloads import Prompt
    from edge_conflayers.tune.prompts import DEFAULT_PROMPTS

    return [
        Prompt(f"{kind} {i}", kind, text)
        for kind, texts in DEFAULT_PROMPTS.items()
        for i, text in enumerate(texts)
    ]


def _show_exits(result: TaughtResult | None) -> None:
    if result is None:
        raise BadInput("too little text to teach exits; give a larger --budget")
    for layer, share in zip(result.exits.layers, result.foreseen, strict=True):
        click.echo(f"exit after {layer} layers: foresees {share:.0%} of the next tokens")
    click.echo(f"taught with texts of {result.tokens} tokens; use it by --method dssd")
    if result.interrupted:
        click.echo("interrupted: what was learned so far is kept", err=True)
        sys.exit(130)


class _Bars(StageBars):
    """A progress bar for each stage that has a budget, a line for one that has none."""

    def __init__(self) -> None:
        super().__init__()
        self._label = ""

    def show(self, progress: Progress) -> None:
        if self.enters(progress.stage):
            if progress.budget:
                length = int(progress.budget * _TICKS)
                self.begin(length, progress.stage, item_show_func=lambda _: self._label)
            else:
                click.echo(f"{progress.stage} what steps cost", err=True)
        self._label = progress.label
        self.advance(int(progress.seconds * _TICKS))


def _show_sets(found: Sequence[SkipSet]) -> None:
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
