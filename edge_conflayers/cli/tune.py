"""``edge-conflayers tune``: teaches a next-state head and finds skip sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, show_result
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    count_option,
    device_options,
    file_option,
    fresh_option,
    json_option,
    kernels_option,
    model_argument,
    predict_option,
    prompts_option,
    provider_option,
    quiet_option,
    raw_option,
)
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.prompts import system_option, template_options
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.stages import MEASURING, loading
from edge_conflayers.cli.tuned import exits_json, show_exits, show_tuned, tuned_json
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.bench.workloads import Prompt
    from edge_conflayers.chat import TemplateOptions
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions
    from edge_conflayers.tune import tuning

_LONGEST = 7 * 24 * 3600  # seconds


@click.command(
    cls=Command,
    short_help="Make a model faster: let it learn from its own texts.",
    examples=(
        "edge-conflayers tune qwen2.5-coder-1.5b",
        "edge-conflayers tune model.gguf --texts ~/notes --budget 3600",
        "edge-conflayers tune model.gguf --prompts prompts.jsonl --json tuned.json",
    ),
)
@model_argument
@group(
    "Learning",
    prompts_option(
        help="JSON lines or text as for `bench`: prompts to learn to answer. Each category is a"
        " kind that layers are searched for.  [default: everyday tasks]",
    ),
    file_option(
        "--texts",
        "texts_path",
        help="A text file, or a folder of text or code, to learn from as well.",
    ),
    click.option(
        "--budget",
        type=click.FloatRange(min=1),
        default=300,
        show_default=True,
        help="Seconds in all, besides measuring what steps cost: a minute to a night. Most of it"
        " teaches the next-state head (unless steps take so little that it would not pay), the"
        " rest searches for layers.",
    ),
    count_option(
        "--limit", default=3, help="Most prompts of a kind that layers are searched with."
    ),
    predict_option(96, least=32, help="Most tokens to write for each prompt."),
    click.option(
        "--exits",
        is_flag=True,
        help="Teach the early exits of the method dssd with the whole budget, and do nothing else.",
    ),
    fresh_option(
        "Forget all that was learned about this model, its next-state head and taught exits"
        " included."
    ),
)
@group("Prompt", system_option, raw_option)
@template_options
@model_options
@device_options
@group("Machine", kernels_option, provider_option)
@group("Output", json_option, quiet_option)
def tune(
    model: str,
    prompts_file: Path | None,
    texts_path: Path | None,
    budget: float,
    limit: int,
    predict: int,
    system: str | None,
    raw: bool,
    template: TemplateOptions,
    exits: bool,
    fresh: bool,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    provider: str | None,
    json_file: Path | None,
    quiet: bool,
) -> None:
    """Make MODEL faster: teach it to foresee its own tokens, by its answers to your prompts and to
    everyday tasks, and search for the layers that are best dropped in drafts.

    What is found is kept for `run` on this machine. Ctrl-C keeps the best so far.
    """
    from edge_conflayers import machine
    from edge_conflayers.bench import workloads
    from edge_conflayers.bench.about import about, about_model
    from edge_conflayers.bench.runner import make_task
    from edge_conflayers.limits import check_number
    from edge_conflayers.onnx.opening import open_model
    from edge_conflayers.tune import tuning
    from edge_conflayers.tune.user_texts import read_user_texts

    check_number("budget", budget, 1, _LONGEST)
    threads = machine.threads_to_use(threads)
    own = [] if prompts_file is None else workloads.load(prompts_file)
    user_texts = [] if texts_path is None else read_user_texts(texts_path)
    if json_file is not None:
        adapters = (each.path for each in options.lora)
        check_writable(json_file, model, prompts_file, texts_path, *adapters)
    path = find_model(model, quiet=quiet)
    with (
        Progress(loading(path), quiet=quiet) as progress,
        open_model(
            path,
            gpu_layers=gpu_layers,
            kernels=kernels,
            provider=provider,
            threads=threads,
            options=options,
        ) as loaded,
    ):

        def tokens(prompt: Prompt) -> tuple[int, ...]:
            return make_task(loaded, prompt, raw=raw, system=system, template=template).tokens

        to_teach = [tokens(prompt) for prompt in own]
        to_read = map(loaded.tokenize, user_texts)  # as far as there is time to read them
        stages = _Stages(progress)
        head = {**about(path, threads), **about_model(loaded)}
        if exits:
            result = tuning.tune_exits(
                *(loaded, to_teach, to_read),
                budget=budget,
                threads=threads,
                fresh=fresh,
                on_progress=stages.show,
            )
            progress.end()
            if result is None:
                raise BadInput("too little text to teach exits; give a larger --budget")
            show_result(
                json_file, lambda: {**head, **exits_json(result)}, lambda: show_exits(result)
            )
            _end(result.interrupted, "what was learned")
            return
        tuned = tuning.tune(
            loaded,
            {
                kind: [tokens(prompt) for prompt in prompts]
                for kind, prompts in workloads.by_category(own or _default(), limit).items()
            },
            to_teach=to_teach,
            user_texts=to_read,
            budget=budget,
            max_tokens=predict,
            threads=threads,
            fresh=fresh,
            on_progress=stages.show,
        )
    if tuned.no_head and not quiet:
        click.echo(f"note: no next-state head: {tuned.no_head}", err=True)
    show_result(json_file, lambda: {**head, **tuned_json(tuned)}, lambda: show_tuned(tuned))
    _end(tuned.interrupted, "what was found")


def _end(interrupted: bool, what: str) -> None:
    if interrupted:
        click.echo(f"interrupted: {what} so far is kept", err=True)
        sys.exit(130)


def _default() -> list[Prompt]:
    """Prompts to search layers with."""
    from edge_conflayers.bench.workloads import Prompt
    from edge_conflayers.tune.prompts import DEFAULT_PROMPTS

    return [
        Prompt(f"{kind} {i}", kind, text)
        for kind, texts in DEFAULT_PROMPTS.items()
        for i, text in enumerate(texts)
    ]


class _Stages:
    """Shows the stages of tuning."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""

    def show(self, now: tuning.Progress) -> None:
        if now.stage != self._stage:
            self._stage = now.stage
            doing = now.stage if now.budget else MEASURING
            self._progress.begin(doing, now.budget, "seconds", at_once=True)
        self._progress.update(now.seconds, more=now.label)
