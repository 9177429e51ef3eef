"""``edge-conflayers train``: LayerSkip's training recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, show_result
from edge_conflayers.cli.options import (
    count_option,
    file_option,
    json_option,
    model_argument,
    prompts_option,
    quiet_option,
)
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.stages import loading
from edge_conflayers.cli.trained import TrainingStages, report_json, show_report
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.engine.model import Model
    from edge_conflayers.train.recipe import Curriculum, DropoutCurriculum

_BUDGET = 1200.0  # seconds, without --steps
_LONGEST = 7 * 24 * 3600  # seconds
_RATES = {"lora": 1e-3, "full": 1e-4}  # not tuned


@click.command(
    cls=Command,
    short_help="Train a model's first layers to draft well (LayerSkip).",
    examples=(
        "edge-conflayers train smollm2-135m -o trained.gguf",
        "edge-conflayers train model.gguf -o trained.gguf --texts ~/notes --budget 3600",
    ),
)
@model_argument
@group(
    "Texts",
    file_option(
        "--texts",
        help="Train on this text file, or on the texts and code of this folder."
        "  [default: on texts that the model writes itself]",
    ),
    prompts_option(
        help="Prompts as for `bench`; the model's answers to these, in turn with everyday tasks,"
        " are the texts.  [default: the tasks alone]",
    ),
    click.option(
        "--targets",
        type=click.Choice(["model", "text"]),
        default="model",
        show_default=True,
        help="What exits and the full model learn: the distribution of the model as it was, so"
        " that its own texts stay as good as they are; or the texts' tokens, as in LayerSkip's"
        " paper.",
    ),
)
@group(
    "Training",
    file_option(
        "--weights",
        help="Hugging Face folder that MODEL was converted from: begin with its weights"
        " (.safetensors), not with MODEL's rounded ones.",
    ),
    click.option(
        "--method",
        type=click.Choice(["lora", "full"]),
        default="lora",
        show_default=True,
        help="Train low-rank changes of the layers' matrices, or all weights.",
    ),
    count_option("--rank", default=32, help="Rank of LoRA's changes."),
    click.option(
        "--budget",
        type=click.FloatRange(min=1),
        help=f"Seconds in all, writing texts included.  [default: {_BUDGET:.0f}]",
    ),
    count_option("--steps", help="Training steps, instead of a budget of seconds."),
    click.option(
        *("-lr", "--learning-rate"),
        type=click.FloatRange(min=0, min_open=True),
        help=f"At its peak.  [default: {_RATES['lora']:g} for lora, {_RATES['full']:g} for full]",
    ),
    count_option("--batch-size", default=1024, least=8, help="Most tokens of a step."),
    count_option("--max-seq-length", default=512, least=32, help="Most tokens of a text."),
    click.option(
        *("-s", "--seed"),
        type=int,
        default=0,
        show_default=True,
        help="Seed of the random numbers.",
    ),
)
@group(
    "LayerSkip",
    click.option(
        "--exits",
        metavar="N,N,...|all",
        help="Layers after which to exit, to train.  [default: after every eighth, as `del` has"
        " them]",
    ),
    click.option(
        "--curriculum",
        type=click.Choice(["rotational", "gradual", "none"]),
        default="rotational",
        show_default=True,
        help="Exits of a step: some, in turn; from the last down to the first; or all.",
    ),
    count_option(
        "--interval", default=4, help="With `rotational`, a step trains every so many exits."
    ),
    click.option(
        "--exit-scale",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=1.0,
        show_default=True,
        help="How much early exits' losses weigh.",
    ),
    click.option(
        "--layer-dropout",
        type=click.FloatRange(min=0, max=1, max_open=True),
        default=0.1,
        show_default=True,
        help="How often the last layer is dropped; earlier ones less.",
    ),
    click.option(
        "--dropout-curriculum",
        type=click.Choice(["none", "exp"]),
        default="none",
        show_default=True,
        help="Drop layers as often from the first step on, or more and more often, as in the paper"
        " for models that are trained from scratch.",
    ),
)
@group(
    "Machine",
    count_option("-t", "--threads", help="CPU threads.  [default: physical cores]"),
    click.option(
        "--device",
        metavar="[cpu|cuda|...]",
        help="PyTorch's device that trains.  [default: cuda if there is one, else cpu]",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        help="Of matrix products.  [default: bfloat16 where the device is fast at it]",
    ),
)
@group(
    "Output",
    file_option("-o", "--out", required=True, help="The trained model's .gguf file, a new one."),
    click.option(
        "--outtype",
        type=click.Choice(["same", "q8_0", "f16", "bf16", "f32"]),
        default="q8_0",
        show_default=True,
        help="How matrices are stored. `same` is as in MODEL, tensor by tensor; rounding to four"
        " bits undoes a part of the training.",
    ),
    json_option,
    quiet_option,
)
def train(
    model: str,
    out: Path,
    weights: Path | None,
    texts: Path | None,
    prompts_file: Path | None,
    exits: str | None,
    budget: float | None,
    steps: int | None,
    curriculum: Curriculum,
    interval: int,
    exit_scale: float,
    layer_dropout: float,
    dropout_curriculum: DropoutCurriculum,
    max_seq_length: int,
    threads: int | None,
    json_file: Path | None,
    quiet: bool,
    **given: Any,
) -> None:
    """Train MODEL so that its first layers draft well, by the recipe of LayerSkip (arXiv
    2404.16710), for `--method layerskip` and `del`.

    The trained model is another model with texts of its own; how much worse or better it is than
    MODEL is shown. Models of the architectures llama, qwen2, qwen3 and gemma3. Ctrl-C keeps the
    best so far.
    """
    from edge_conflayers.train.extra import check_extra

    check_extra()
    import torch

    from edge_conflayers import machine
    from edge_conflayers.drafters.dynamic_exit import DelSettings
    from edge_conflayers.limits import check_number
    from edge_conflayers.train import layerskip
    from edge_conflayers.train.recipe import Recipe

    if texts is not None and prompts_file is not None:
        raise BadInput("--texts and --prompts do not go together; give one of them")
    if steps is not None and budget is not None:
        raise BadInput("--steps and --budget do not go together; give one of them")
    seconds = None if steps is not None else budget or _BUDGET
    check_number("budget", seconds or 1, 1, _LONGEST)
    threads = machine.threads_to_use(threads)
    if json_file is not None:
        check_writable(json_file, model, out, texts, prompts_file)
    path = find_model(model, quiet=quiet)
    if path.is_dir():
        raise BadInput(
            f"{path} is a folder that `export` wrote, which can't be trained; give a .gguf file"
        )
    n_layer = layerskip.check(path, out, given["outtype"]).n_layer
    recipe = Recipe(
        n_layer,
        DelSettings().exits_of(n_layer) if exits is None else _exits(exits, n_layer),
        layer_dropout=layer_dropout,
        dropout_curriculum=dropout_curriculum,
        exit_scale=exit_scale,
        curriculum=curriculum,
        interval=interval,
    )
    torch.set_num_threads(threads)
    prompts = _prompts(prompts_file)
    with Progress(loading(path), quiet=quiet) as progress:
        report = layerskip.train_exits(
            path,
            out,
            recipe,
            _settings(seconds, steps, given),
            weights=weights,
            texts=texts,
            prompts=prompts,
            longest=max_seq_length,
            outtype=given["outtype"],
            threads=threads,
            on_progress=TrainingStages(progress, quiet=quiet).show,
        )
    show_result(json_file, lambda: report_json(report), lambda: show_report(report))
    if report.trained.interrupted:
        click.echo("interrupted: the best so far is stored", err=True)
        sys.exit(130)


def _settings(seconds: float | None, steps: int | None, given: dict[str, Any]) -> Any:
    import torch

    from edge_conflayers.train.trainer import Settings

    device = given["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            f"PyTorch can't use the device {device} here ({error}); leave out --device"
        ) from None
    return Settings(
        method=given["method"],
        targets=given["targets"],
        seconds=seconds,
        steps=steps,
        learning_rate=given["learning_rate"] or _RATES[given["method"]],
        batch_tokens=given["batch_size"],
        rank=given["rank"],
        seed=given["seed"],
        device=device,
        dtype=given["dtype"],
    )


def _exits(text: str, n_layer: int) -> tuple[int, ...]:
    if text == "all":
        return tuple(range(1, n_layer))
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise BadInput(f"--exits {text} is not a list of numbers; give such as 4,8,12") from None


def _prompts(file: Path | None) -> Callable[[Model], Sequence[Sequence[int]]]:
    """Tokens of the user's prompts, if there are any."""
    from edge_conflayers.bench import workloads

    prompts = [] if file is None else workloads.load(file)

    def tokens(model: Model) -> Sequence[Sequence[int]]:
        from edge_conflayers.bench.runner import make_task

        return [make_task(model, prompt, raw=False).tokens for prompt in prompts]

    return tokens
