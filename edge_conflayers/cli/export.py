"""``edge-conflayers export``: writes a model for ONNX runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, show_result
from edge_conflayers.cli.options import json_option, model_argument, quiet_option
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.stages import loading

if TYPE_CHECKING:
    from edge_conflayers.onnx.export import ExportProgress, Target
    from edge_conflayers.onnx.weights import Precision

_DOING = {"reading": "reading the model", "writing": "writing weights"}


@click.command(
    cls=Command,
    short_help="Write a model for ONNX Runtime.",
    examples=(
        "edge-conflayers export smollm2-135m exported",
        "edge-conflayers export model.gguf exported --target standard --precision fp16",
    ),
)
@model_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@group(
    "ONNX",
    click.option(
        "--target",
        type=click.Choice(["ort", "standard"]),
        default="ort",
        show_default=True,
        help="ONNX Runtime's own operators, which are fastest there, or standard ones alone (opset"
        " 24) for other runtimes.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["keep", "fp32", "fp16"]),
        default="keep",
        show_default=True,
        help="Weights as they are in the file, or all in one format. fp16 makes activations fp16,"
        " too: for GPUs; CPUs are slower with it.",
    ),
)
@group("Output", json_option, quiet_option)
def export(
    model: str,
    folder: Path,
    target: Target,
    precision: Precision,
    json_file: Path | None,
    quiet: bool,
) -> None:
    """Write MODEL into the new folder DIR for ONNX Runtime, ONNX Runtime GenAI and transformers.js.

    Models of the architectures llama, qwen2, qwen3 and gemma3. Ctrl-C leaves nothing.
    """
    from edge_conflayers.onnx.extra import check_extra

    check_extra()
    from edge_conflayers.onnx.export import export as write
    from edge_conflayers.onnx.new_folder import check_new

    check_new(folder)
    if json_file is not None:
        check_writable(json_file, model)
    path = find_model(model, quiet=quiet)
    with Progress(loading(path), quiet=quiet) as progress:
        write(path, folder, target=target, precision=precision, on_progress=_Stages(progress).show)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    show_result(
        json_file,
        lambda: {
            "model": str(path),
            "folder": str(folder),
            "bytes": size,
            "target": target,
            "precision": precision,
        },
        lambda: click.echo(f"{folder}  {size / 1e6:.0f} MB"),
    )


class _Stages:
    """Shows the stages of an export."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""

    def show(self, now: ExportProgress) -> None:
        if now.stage != self._stage:
            self._stage = now.stage
            self._progress.begin(_DOING[now.stage], now.total, "bytes")
        self._progress.update(now.done)
