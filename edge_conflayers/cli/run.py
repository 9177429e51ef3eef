"""``edge-conflayers run``: text from a model, as fast as this machine gives it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    context_options,
    draft_model_option,
    epsilon_option,
    file_option,
    find_draft_model,
    fresh_option,
    kernels_option,
    method_option,
    model_argument,
    predict_option,
    provider_option,
    quiet_option,
    stop_option,
)
from edge_conflayers.cli.prompts import Prompt, prompt_options
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.sampling_options import sampler_arguments, sampling_options
from edge_conflayers.cli.stats_line import show_stats
from edge_conflayers.cli.streams import ArgumentText, read_text
from edge_conflayers.cli.taught import show_taught
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.cli.sources import SourceColours
    from edge_conflayers.completions.request import Piece
    from edge_conflayers.decoding.stats import Stats
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions
    from edge_conflayers.engine.sampling import SamplerSettings
    from edge_conflayers.text_generator import TextGenerator

_JSON_BEGINS = ("{", "true", "false")  # of a schema; anything else is a file's name


@click.command()
@model_argument
@prompt_options
@predict_option(
    512,
    least=-1,
    help="Most tokens to write; -1 for as many as fit in what the model was trained for, 0 for none"
    " (the prompt is still read).",
)
@stop_option
@context_options
@model_options
@sampling_options
@kernels_option
@provider_option
@file_option(
    "--grammar-file",
    help="Grammar that the text must follow: GBNF, or llguidance's Lark after %llguidance.",
)
@click.option(
    "--json-schema",
    type=ArgumentText(),
    metavar="FILE|JSON",
    help="JSON schema that the text must follow: a file, or the schema itself.",
)
@method_option(
    "How to decode: `auto` chooses each round who drafts, or nobody; `plain` goes token by"
    " token. On the CPU the text is the same."
)
@draft_model_option
@epsilon_option
@click.option(
    "--show-draft",
    is_flag=True,
    help="Colour the text by who drafted it, on a terminal.",
)
@fresh_option("Neither use nor keep what is learned about this model.")
@click.option(
    "--learn",
    type=click.FloatRange(min=1, max=24 * 3600),
    metavar="SECONDS",
    help="After the text, teach the next-state head by it for so long; Ctrl-C ends that.",
)
@file_option("--stats-json", help="Write the statistics to a file.")
@quiet_option
def run(
    model: str,
    prompt: Callable[[], Prompt],
    prompt_files: tuple[Path | None, ...],
    predict: int,
    stop: tuple[str, ...],
    ctx: int | None,
    threads: int | None,
    gpu_layers: int,
    options: ModelOptions,
    kernels: KernelChoice | None,
    provider: str | None,
    grammar_file: Path | None,
    json_schema: str | None,
    method: str,
    draft_model: str | None,
    epsilon: float | None,
    show_draft: bool,
    fresh: bool,
    learn: float | None,
    stats_json: Path | None,
    quiet: bool,
    **sampling: Any,
) -> None:
    """Write text with MODEL: a .gguf file, a name of `models list`, org/repo or org/repo:QUANT of
    Hugging Face, or the address of a .gguf file, which is pulled on first use; or a folder that
    `export` wrote, which runs on ONNX Runtime.
    """
    if stats_json is not None:
        read = (*prompt_files, grammar_file, _schema_file(json_schema))
        adapters = (each.path for each in options.lora)
        check_writable(stats_json, model, draft_model, *read, *adapters)
    if learn is not None and fresh:
        raise BadInput("--learn keeps what is learned and --fresh does not; choose one")
    asked = prompt()
    path = find_model(model, quiet=quiet)

    from edge_conflayers.cli.sources import SourceColours
    from edge_conflayers.completions.request import TextRequest
    from edge_conflayers.completions.writing import write
    from edge_conflayers.decoding.stats import Stats
    from edge_conflayers.engine.sampling import RANDOM_SEEDS
    from edge_conflayers.text_generator import TextGenerator

    settings = _sampler_settings(grammar_file, json_schema, **sampling)
    stats = Stats()
    colours = SourceColours() if show_draft else None
    interrupted = False
    with TextGenerator(
        path,
        method=method,
        n_ctx=ctx,
        threads=threads,
        gpu_layers=gpu_layers,
        kernels=kernels,
        provider=provider,
        draft_model=find_draft_model(draft_model, (method,), quiet=quiet),
        epsilon=epsilon,
        options=options,
        fresh=fresh,
    ) as writer:
        tokens = asked.tokens(writer.model)
        max_tokens = None if predict < 0 else predict
        session = writer.open(len(tokens), max_tokens)
        notes = [] if quiet else [_room_note(session.n_ctx - len(tokens), predict)]
        if writer.method_name != method and not quiet:
            notes.append(session.why_plain)
        _tell(notes)
        request = TextRequest(tokens, settings, max_tokens, stop)
        drawn: list[int] = []
        try:
            _show(write(writer, request, stats), drawn, colours)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            writer.save()
        sys.stdout.write("\n")
        sys.stdout.flush()
        used, seed = writer.method_name, settings.seed
        if not quiet:
            if colours is not None:
                colours.print_legend(stats.sources)
            show_stats(stats, used, random_seed=seed if sampling["seed"] in RANDOM_SEEDS else None)
            _tell([_incomplete_note(settings, stats)])
        if stats_json is not None:
            about = {"model": str(path), "method": used, "seed": seed}
            write_json(stats_json, {**about, **stats.to_json()})
        if learn is not None and not interrupted:
            interrupted = _learn(writer, tokens, drawn, learn, quiet=quiet)
    if interrupted:
        sys.exit(130)


def _tell(notes: Sequence[str | None]) -> None:
    for note in filter(None, notes):
        click.echo(f"note: {note}", err=True)


def _room_note(room: int, predict: int) -> str | None:
    """Says beforehand that a text may not get as long as it was asked to.

    Args:
        room: tokens of the context after the prompt; the text's last one needs none.
    """
    if predict <= room + 1:
        return None
    return (
        f"the context has room for {room + 1} tokens after the prompt, so that the text ends before"
        f" -n {predict}; see -c"
    )


def _incomplete_note(settings: SamplerSettings, stats: Stats) -> str | None:
    """Says that a text may not follow what it must, because it was cut off."""
    if settings.constraint is None or stats.finish_reason not in ("length", "context"):
        return None
    option = "-n" if stats.finish_reason == "length" else "-c"
    return (
        f"the text was cut off after {stats.tokens} tokens, so that it may not be all that the"
        f" {settings.constraint[0]} asks for; raise {option}"
    )


def _sampler_settings(
    grammar_file: Path | None, json_schema: str | None, **sampling: Any
) -> SamplerSettings:
    from edge_conflayers.engine.sampling import SamplerSettings

    if grammar_file is not None and json_schema is not None:
        raise BadInput("both --grammar-file and --json-schema are given; choose one")
    if (schema_file := _schema_file(json_schema)) is not None:
        json_schema = read_text(schema_file, "JSON schema")
    return SamplerSettings(
        grammar=None if grammar_file is None else read_text(grammar_file, "grammar file"),
        json_schema=json_schema,
        **sampler_arguments(**sampling),
    )


def _schema_file(json_schema: str | None) -> Path | None:
    """The file that a schema is in; None if it is given as it is."""
    if json_schema is None or json_schema.lstrip().startswith(_JSON_BEGINS):
        return None
    return Path(json_schema)


def _show(
    pieces: Generator[Piece, None, None], drawn: list[int], colours: SourceColours | None
) -> None:
    """Writes a text to standard output as it comes.

    Args:
        drawn: gets its tokens.
    """
    with closing(pieces):  # an interrupt still completes the statistics
        for piece in pieces:
            if piece.token is not None:
                drawn.append(piece.token)
            sys.stdout.write(colours.mark(piece.parts) if colours else piece.text)
            sys.stdout.flush()


def _learn(
    writer: TextGenerator, prompt: list[int], text: list[int], seconds: float, *, quiet: bool
) -> bool:
    """Teaches the next-state head by a text. Returns whether it was interrupted."""
    from edge_conflayers.tune.after_text import learn_after_text

    try:
        taught = learn_after_text(
            *(writer.model, writer.learned, prompt, text), seconds=seconds, threads=writer.threads
        )
    except KeyboardInterrupt:
        return True
    if taught is None:
        _tell([] if quiet else ["too little text to learn from; give a longer --learn"])
        return False
    if not quiet:
        show_taught(taught, err=True)
    return taught.interrupted
