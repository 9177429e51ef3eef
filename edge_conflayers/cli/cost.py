"""``edge-conflayers cost``: what steps of a model cost on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.cli.options import (
    count_option,
    device_options,
    json_option,
    measured_kernels_option,
    model_argument,
    provider_option,
)
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.terminal import print_table

if TYPE_CHECKING:
    from edge_conflayers.engine.binding import KernelChoice


@click.command()
@model_argument
@json_option
@count_option("--context", default=128, help="Tokens in the cache before each step.")
@count_option(
    "--repeat", default=7, help="Times that everything is measured; medians are reported."
)
@device_options
@measured_kernels_option
@provider_option
def cost(
    model: str,
    json_file: Path | None,
    context: int,
    repeat: int,
    threads: int | None,
    gpu_layers: int,
    kernels: KernelChoice | None,
    provider: str | None,
) -> None:
    """Measure what a step of MODEL costs: with one token (T1), with 2 to 16 as in verification
    (V), and with layers dropped as in drafting (c)."""
    from edge_conflayers.bench.about import about
    from edge_conflayers.costs.report import ROOM, measure, rows
    from edge_conflayers.engine import binding
    from edge_conflayers.engine.model import Model
    from edge_conflayers.limits import MOST_INT32, check_number
    from edge_conflayers.onnx.opening import open_model

    check_number("context", context, 1, MOST_INT32 - ROOM)
    if json_file is not None:
        check_writable(json_file, model)
    path = find_model(model)
    with (
        open_model(
            path, gpu_layers=gpu_layers, kernels=kernels, provider=provider, threads=threads
        ) as loaded,
        loaded.open_session(n_ctx=context + ROOM, threads=threads) as session,
        click.progressbar(length=repeat, label="measuring", file=sys.stderr) as bar,
    ):
        report = measure(
            session, context=context, repeat=repeat, on_progress=lambda done, total: bar.update(1)
        )
    about_kernels = (
        binding.kernels(loaded.kernels)
        if isinstance(loaded, Model)
        else {"formats": {"the whole graph": loaded.arithmetic}}
    )
    if json_file is not None:
        head = about(path, report.threads)
        write_json(json_file, {**head, "kernels": about_kernels, **report.to_json()})
    print_table(("step", "over T1", "ms"), list(rows(report)))
    if not report.c:
        click.echo(f"layers of architecture '{loaded.architecture}' cannot be dropped")
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
