"""``edge-conflayers serve``: models over HTTP, as OpenAI's API has them."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.completing import ModelName
from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.learning import check_learning, learn_option
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    context_options,
    count_option,
    draft_model_option,
    epsilon_option,
    exact_reuse_option,
    file_option,
    find_draft_model,
    fresh_option,
    kernels_option,
    method_option,
    provider_option,
    quiet_option,
)
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.sampling_options import sampler_arguments, server_sampling_options
from edge_conflayers.cli.stages import loading

if TYPE_CHECKING:
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions

_MIB = 2**20


@click.command(
    cls=Command,
    short_help="Serve models over HTTP, as OpenAI's API does.",
    examples=(
        "edge-conflayers serve qwen2.5-coder-1.5b",
        "edge-conflayers serve model.gguf --port 8000 --parallel 2 --api-key-file keys.txt",
    ),
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=ModelName())
@group(
    "Server",
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8080,
        show_default=True,
        help="Port to listen on; 0 for any that is free.",
    ),
    count_option(
        *("-np", "--parallel"),
        default=1,
        help="Texts of each model that are written at a time, each with a cache; CPU threads are"
        " shared out among them, unless -t says how many each takes.",
    ),
    count_option(
        "--queue",
        least=0,
        default=32,
        help="Texts of each model that may wait; more are refused (429).",
    ),
    count_option(
        *("-n", "--predict"),
        help="Most tokens of a text; requests for more are refused.  [default: what fits]",
    ),
    count_option(
        "--max-body", default=4, help="Most MiB of a request's body; more is refused (413)."
    ),
    click.option(
        "--api-key",
        "api_keys",
        multiple=True,
        envvar="EDGE_CONFLAYERS_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="Key that requests must bring; repeatable. Other users of this machine can see it"
        " here; not so in a file.",
    ),
    file_option("--api-key-file", help="File of such keys, one a line."),
    click.option(
        "--cors",
        multiple=True,
        metavar="ORIGIN",
        help="Origin whose pages may use the server, such as http://localhost:3000; * for any;"
        " repeatable.",
    ),
    click.option("--no-page", is_flag=True, help="Leave out the page for people at /."),
)
@server_sampling_options
@group(
    "Decoding",
    method_option("How to decode, as for `run`."),
    draft_model_option,
    epsilon_option,
    exact_reuse_option(default=True),
    learn_option,
    fresh_option("Neither use nor keep what is learned about the models."),
)
@context_options
@model_options
@group("Machine", kernels_option, provider_option)
@group("Output", quiet_option)
@click.pass_context
def serve(
    context: click.Context,
    /,
    models: tuple[str, ...],
    host: str,
    port: int,
    parallel: int,
    queue: int,
    predict: int | None,
    max_body: int,
    api_keys: tuple[str, ...],
    api_key_file: Path | None,
    cors: tuple[str, ...],
    no_page: bool,
    ctx: int | None,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    provider: str | None,
    method: str,
    draft_model: str | None,
    epsilon: float | None,
    exact_reuse: bool,
    learn: bool,
    fresh: bool,
    quiet: bool,
    **sampling: Any,
) -> None:
    """Serve MODELs over HTTP as OpenAI's API does: each as for `run`. Sampling options hold for
    requests that do not give their own.
    """
    from edge_conflayers.server.extra import check_extra

    check_extra()

    from edge_conflayers.server.opening import Opening, names_of, open_service
    from edge_conflayers.server.options import ServerOptions, hosts_of, read_keys
    from edge_conflayers.server.running import address, listen, serve

    if learn:
        check_learning(method, fresh=fresh)
    keys = (*api_keys, *(read_keys(api_key_file) if api_key_file is not None else ()))
    named = names_of(models)
    allowed = ServerOptions(
        queue, predict, max_body * _MIB, keys, cors, hosts=hosts_of(host, keys), page=not no_page
    )
    if context.find_root().params["debug"]:
        logging.getLogger("edge_conflayers.server").setLevel(logging.DEBUG)
    opening = Opening(
        parallel=parallel,
        sampling=sampler_arguments(**sampling),
        n_ctx=ctx,
        threads=threads,
        gpu_layers=gpu_layers,
        options=options,
        kernels=kernels,
        provider=provider,
        method=method,
        draft_model=find_draft_model(draft_model, (method,), quiet=quiet),
        epsilon=epsilon,
        exact_reuse=exact_reuse,
        fresh=fresh,
        learn=learn,
        tell=lambda line: None if quiet else click.echo(f"note: {line}", err=True),
    )
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        paths = {name: find_model(model, quiet=quiet) for name, model in named.items()}
        progress = stack.enter_context(Progress(loading(*paths.values()), quiet=quiet))
        service = stack.enter_context(open_service(paths, opening, allowed))
        progress.end()

        def started() -> None:
            if not quiet:
                names, url = ", ".join(service.models), address(listening)
                page = "" if no_page else f"page at {url}/; "
                click.echo(f"serving {names} at {url}/v1; {page}Ctrl-C ends it", err=True)

        def ending(texts: int) -> None:
            progress.note(f"ending; texts still to be written: {texts}; Ctrl-C again ends at once")

        serve(service, listening, started, ending)
