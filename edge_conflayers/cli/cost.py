"""``edge-conflayers cost``: what steps of a model cost on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, show_result
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    count_option,
    device_options,
    json_option,
    measured_kernels_option,
    model_argument,
    provider_option,
    quiet_option,
)
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.stages import loading
from edge_conflayers.cli.terminal import print_table

if TYPE_CHECKING:
    from edge_conflayers.costs.report import CostReport
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions


@click.command(
    cls=Command,
    short_help="Measure what a model's steps cost here.",
    examples=(
        "edge-conflayers cost smollm2-135m",
        "edge-conflayers cost model.gguf --kernels upstream --context 1000 --json cost.json",
        "edge-conflayers cost model.gguf --json - > cost.json",
    ),
)
@model_argument
@group(
    "Measurement",
    count_option("--context", default=128, help="Tokens in the cache before each step."),
    count_option(
        "--repeat", default=7, help="Times that everything is measured; medians are reported."
    ),
)
@model_options
@device_options
@group("Machine", measured_kernels_option, provider_option)
@group("Output", json_option, quiet_option)
def cost(
    model: str,
    json_file: Path | None,
    context: int,
    repeat: int,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    provider: str | None,
    quiet: bool,
) -> None:
    """Measure what a step of MODEL costs: with one token (T1), with 2 to 16 as in verification
    (V), and with layers dropped as in drafting (c)."""
    from edge_conflayers.bench.about import about
    from edge_conflayers.costs.report import ROOM, measure
    from edge_conflayers.engine import binding
    from edge_conflayers.engine.model import Model
    from edge_conflayers.limits import MOST_INT32, check_number
    from edge_conflayers.onnx.opening import open_model

    check_number("context", context, 1, MOST_INT32 - ROOM)
    if json_file is not None:
        check_writable(json_file, model, *(each.path for each in options.lora))
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
        loaded.open_session(n_ctx=context + ROOM, threads=threads) as session,
    ):
        progress.begin("measuring steps", repeat, at_once=True)
        report = measure(
            session,
            context=context,
            repeat=repeat,
            on_progress=lambda done, total: progress.update(done),
        )
    about_kernels = (
        binding.kernels(loaded.kernels)
        if isinstance(loaded, Model)
        else {"formats": {"the whole graph": loaded.arithmetic}}
    )
    show_result(
        json_file,
        lambda: {**about(path, report.threads), "kernels": about_kernels, **report.to_json()},
        lambda: _show(report, about_kernels, loaded.architecture),
    )


def _show(report: CostReport, about_kernels: Mapping[str, Any], architecture: str) -> None:
    from edge_conflayers.costs.report import rows

    print_table(("step", "over T1", "ms"), list(rows(report)))
    if not report.c:
        click.echo(f"layers of architecture '{architecture}' cannot be dropped")
    served: dict[str, list[str]] = {}
    for weight_format, kernel in about_kernels["formats"].items():
        served.setdefault(kernel, []).append(weight_format)
    for kernel, formats in served.items():
        click.echo(f"kernels: {kernel} for {', '.join(formats)}")
    switch = report.graph_switch
    click.echo(
        f"switching graphs: {switch.graphs_built:.2f} built, {switch.build_ms:.3f} ms building,"
        f" {switch.wall_ms:.3f} ms in all"
    )
    if report.memory_gb_per_s is not None:
        click.echo(f"memory read by {report.threads} threads: {report.memory_gb_per_s:.1f} GB/s")
    if report.floor_ms is not None:
        click.echo(f"reading the weights alone takes {report.floor_ms:.2f} ms a step")
