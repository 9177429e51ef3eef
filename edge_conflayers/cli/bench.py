"""``edge-conflayers bench``: methods compared on the user's own prompts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.bench import workloads
from edge_conflayers.bench.report import UPSTREAM, UPSTREAM_LOOKUP
from edge_conflayers.cli.bench_report import page_of, show_report, step_costs, write_page_of
from edge_conflayers.cli.completing import ModelName, some_of
from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, show_result
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    context_options,
    count_option,
    draft_model_option,
    epsilon_option,
    file_option,
    find_draft_model,
    fresh_option,
    json_option,
    kernels_option,
    method_names,
    predict_option,
    prompts_option,
    provider_option,
    quiet_option,
    raw_option,
)
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.prompts import system_option, template_options
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.sampling_options import sampler_arguments, sampling_options
from edge_conflayers.cli.stages import loading
from edge_conflayers.errors import BadInput
from edge_conflayers.method_names import METHOD_NAMES

if TYPE_CHECKING:
    from edge_conflayers.bench.runner import Engine, Generation
    from edge_conflayers.chat import TemplateOptions
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.language_model import LanguageModel
    from edge_conflayers.engine.model_options import ModelOptions
    from edge_conflayers.learned import Learned

_OF_UPSTREAM = (UPSTREAM, UPSTREAM_LOOKUP)


@click.command(
    cls=Command,
    short_help="Compare decoding methods on your prompts.",
    examples=(
        "edge-conflayers bench model.gguf --prompts prompts.jsonl --methods plain,auto -n 64",
        "edge-conflayers bench model.gguf --prompts prompts.jsonl -ctk q8_0 -ctv q8_0",
        "edge-conflayers bench model.gguf --prompts prompts.jsonl --json bench.json --report page",
        "edge-conflayers bench --from-json bench.json --report page-again",
    ),
)
@click.argument("model", required=False, type=ModelName())
@group(
    "Benchmark",
    prompts_option(
        help="JSON lines with `turns` (its first is used), `prompt` or `question`; or text, one"
        " prompt per block between blank lines.",
    ),
    click.option(
        "--methods",
        default="plain,auto",
        show_default=True,
        shell_complete=some_of((*_OF_UPSTREAM, *METHOD_NAMES)),
        help="Comma-separated; `upstream` is the unpatched library in a process of its own,"
        " `upstream-lookup` the same with llama-cpp-python's prompt lookup. Speed-ups and"
        " `identical` are given over `plain`.",
    ),
    count_option(
        "--limit", help="Most prompts, spread evenly over their categories.  [default: all]"
    ),
    predict_option(128, help="Most tokens to write for each prompt."),
    count_option("--repeat", default=1, help="Runs of everything; medians are reported."),
    fresh_option(
        "Start each prompt without what was learned on the ones before. (What was learned in"
        " earlier uses is not read, but see --tuned.)",
    ),
    click.option(
        "--tuned",
        is_flag=True,
        help="Start from the skip sets that `tune` has found for this model.",
    ),
    file_option(
        "--upstream-lib",
        help="Folder of the unpatched library.  [default: that of `make upstream`]",
    ),
)
@group("Prompt", system_option, raw_option)
@template_options
@sampling_options
@group("Decoding", draft_model_option, epsilon_option)
@context_options
@model_options
@group("Machine", kernels_option, provider_option)
@group(
    "Output",
    json_option,
    file_option(
        "--report",
        "report_folder",
        help="Folder for a page with figures (index.html, *.svg). What steps cost here is measured"
        " as well, after the texts.",
    ),
    file_option(
        "--from-json",
        "earlier",
        help="Run nothing: make the page of a file that --json wrote. Without MODEL, with"
        " --report.",
    ),
    quiet_option,
)
def bench(
    model: str | None,
    prompts_file: Path | None,
    methods: str,
    draft_model: str | None,
    epsilon: float | None,
    limit: int | None,
    predict: int,
    repeat: int,
    fresh: bool,
    tuned: bool,
    system: str | None,
    raw: bool,
    template: TemplateOptions,
    json_file: Path | None,
    report_folder: Path | None,
    earlier: Path | None,
    upstream_lib: Path | None,
    ctx: int | None,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    provider: str | None,
    quiet: bool,
    **sampling: Any,
) -> None:
    """Compare decoding methods of MODEL on prompts, interleaved within one run.

    Ctrl-C keeps the prompts that all methods have finished.
    """
    if report_folder is not None:
        from edge_conflayers.bench.page import check_extra

        check_extra()
    if earlier is not None:
        page_of(earlier, report_folder, model, prompts_file, quiet=quiet)
        return
    if model is None or prompts_file is None:
        missing = "argument 'MODEL'" if model is None else "option '--prompts'"
        raise click.UsageError(f"Missing {missing}.")
    prompts = workloads.spread(workloads.load(prompts_file), limit)

    from edge_conflayers import machine
    from edge_conflayers.bench.about import about, about_model
    from edge_conflayers.bench.report import make_report
    from edge_conflayers.bench.runner import LocalEngine, context_for, make_task, run, warm_up
    from edge_conflayers.bench.upstream_client import UpstreamEngine, find_library
    from edge_conflayers.engine.sampling import SamplerSettings
    from edge_conflayers.learned import Learned
    from edge_conflayers.methods import (
        TUNED_METHODS,
        MethodOptions,
        check_epsilon,
        uses_bridges,
        uses_exits,
        uses_head,
    )
    from edge_conflayers.onnx.opening import open_draft_model, open_model

    names = _chosen_methods(methods)
    check_epsilon(names, epsilon)
    of_upstream = set(_OF_UPSTREAM) & set(names)
    if of_upstream and Path(model).is_dir():
        raise BadInput(f"upstream's library runs .gguf files, not {model}; leave out those methods")
    library = find_library(upstream_lib) if of_upstream else None
    settings = SamplerSettings(**sampler_arguments(**sampling))
    if json_file is not None:
        adapters = (each.path for each in options.lora)
        check_writable(json_file, model, draft_model, prompts_file, *adapters)
    if report_folder is not None:
        from edge_conflayers.bench.page.write import make_folder

        make_folder(report_folder)
    path = find_model(model, quiet=quiet)
    draft_path = find_draft_model(draft_model, names, quiet=quiet)
    threads = machine.threads_to_use(threads)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(loading(path), quiet=quiet))
        loaded = stack.enter_context(
            open_model(
                path,
                gpu_layers=gpu_layers,
                kernels=kernels,
                provider=provider,
                threads=threads,
                options=options,
            )
        )
        learned = Learned(loaded, threads)
        method_options = MethodOptions(
            draft_model=stack.enter_context(
                open_draft_model(
                    draft_path, loaded, kernels=kernels, provider=provider, threads=threads
                )
            )
            if draft_path is not None
            else None,
            next_state=learned.load_head() if tuned and uses_head(names) else None,
            exits=learned.load_exits() if uses_exits(names) else None,
            epsilon=epsilon,
            bridges=learned.load_bridges() if tuned and uses_bridges(names) else None,
        )
        tasks = [
            make_task(loaded, prompt, raw=raw, system=system, template=template)
            for prompt in prompts
        ]
        n_ctx = context_for(loaded, tasks, predict, ctx)
        found = _tuned(learned, loaded, threads) if tuned else None
        engines: dict[str, Engine] = {}
        for name in names:
            engine: Engine
            if library is not None and name in of_upstream:
                engine = UpstreamEngine(
                    path,
                    library,
                    settings,
                    lookup=name == UPSTREAM_LOOKUP,
                    n_ctx=n_ctx,
                    threads=threads,
                    gpu_layers=gpu_layers,
                    options=options,
                )
            else:
                engine = LocalEngine(
                    name,
                    loaded,
                    settings,
                    n_ctx=n_ctx,
                    threads=threads,
                    options=method_options,
                    learned=found if name in TUNED_METHODS else None,
                )
            engines[name] = stack.enter_context(closing(engine))
        progress.begin("warming up")
        warm_up(engines, tasks[0])
        progress.begin("prompts", repeat * len(tasks), at_once=True)
        results, complete = run(
            engines,
            tasks,
            max_tokens=predict,
            repeat=repeat,
            fresh=fresh,
            on_progress=lambda done, total, runs: _tell(progress, done, total, runs),
        )
        head = {
            **about(path, threads),
            **about_model(loaded),
            "command": shlex.join(["edge-conflayers", *sys.argv[1:]]),
        }
        if report_folder is not None and complete:
            head["costs"] = step_costs(loaded, threads, progress, quiet=quiet)
    if results:
        report = make_report(
            head, results, complete=complete, max_tokens=predict, sampling=settings
        )
        show_result(json_file, lambda: report, lambda: show_report(report))
        if report_folder is not None:
            write_page_of(report, report_folder, quiet=quiet)
    if not complete:
        click.echo(f"interrupted: {len(results)} of {len(tasks)} prompts reported", err=True)
        sys.exit(130)


def _tuned(learned: Learned, model: LanguageModel, threads: int) -> dict[str, Any]:
    """What `tune` has found, without what was learned from texts, which may be those of the
    benchmark."""
    sets = learned.skip_sets()
    if sets.costs is None:
        raise BadInput(f"{model.path.name} is not tuned for {threads} threads; run `tune` first")
    sets.others.clear()
    return sets.to_json()


def _chosen_methods(given: str) -> list[str]:
    known = [*_OF_UPSTREAM, *method_names()]
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise BadInput(f"--methods names no method; choose from {', '.join(known)}")
    for name in names:
        if name not in known:
            raise BadInput(f"there is no method '{name}'; choose from {', '.join(known)}")
    return names


def _tell(progress: Progress, done: int, total: int, runs: Mapping[str, Generation]) -> None:
    rates = (f"{name} {run.stats.tokens_per_second:.1f}" for name, run in runs.items())
    progress.note(f"{done}/{total}: {', '.join(rates)} tokens/s")
    progress.update(done)
