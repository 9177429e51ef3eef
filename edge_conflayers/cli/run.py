"""``edge-conflayers run``: text from a model, as fast as this machine gives it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.constraint_options import (
    CONSTRAINTS,
    constraint_arguments,
    constraint_files,
    constraint_options,
)
from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.cli.learning import check_kept
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
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.prompts import Prompt, prompt_options
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.sampling_options import sampler_arguments, sampling_options
from edge_conflayers.cli.stages import Reading, loading
from edge_conflayers.cli.stats_line import show_stats
from edge_conflayers.cli.taught import show_taught

if TYPE_CHECKING:
    from edge_conflayers.cli.sources import SourceColours
    from edge_conflayers.completions.request import Piece
    from edge_conflayers.decoding.stats import Stats
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.model_options import ModelOptions
    from edge_conflayers.engine.sampling import SamplerSettings
    from edge_conflayers.text_generator import TextGenerator


@click.command(
    cls=Command,
    short_help="Write a text.",
    examples=(
        'edge-conflayers run smollm2-135m -p "Why is the sky blue?" -n 64',
        'edge-conflayers run model.gguf -f notes.txt --system "Summarize." > summary.txt',
        "edge-conflayers run model.gguf --messages chat.json --temp 0.8 --seed 7",
        'edge-conflayers run model.gguf -p "A cat, please." --json-schema cat.json',
    ),
)
@model_argument
@prompt_options
@group(
    "Text",
    predict_option(
        512,
        least=-1,
        help="Most tokens to write; -1 for as many as fit in what the model was trained for, 0 for"
        " none (the prompt is still read).",
    ),
    stop_option,
)
@constraint_options
@sampling_options
@group(
    "Decoding",
    method_option(
        "How to decode: `auto` chooses each round who drafts, or nobody; `plain` goes token by"
        " token. On the CPU the text is the same."
    ),
    draft_model_option,
    epsilon_option,
    fresh_option("Neither use nor keep what is learned about this model."),
    click.option(
        "--learn",
        type=click.FloatRange(min=1, max=24 * 3600),
        metavar="SECONDS",
        help="After the text, teach the next-state head by it for so long; Ctrl-C ends that.",
    ),
)
@context_options
@model_options
@group("Machine", kernels_option, provider_option)
@group(
    "Output",
    click.option(
        "--show-draft", is_flag=True, help="Colour the text by who drafted it, on a terminal."
    ),
    file_option("--stats-json", help="Write the statistics to a file, as JSON."),
    quiet_option,
)
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
    method: str,
    draft_model: str | None,
    epsilon: float | None,
    show_draft: bool,
    fresh: bool,
    learn: float | None,
    stats_json: Path | None,
    quiet: bool,
    **drawing: Any,
) -> None:
    """Write text with MODEL: a .gguf file, a name of `models list`, org/repo or org/repo:QUANT of
    Hugging Face, or the address of a .gguf file, which is pulled on first use; or a folder that
    `export` wrote, which runs on ONNX Runtime.
    """
    constraints = {name: drawing.pop(name) for name in CONSTRAINTS}
    if stats_json is not None:
        read = (*prompt_files, *constraint_files(constraints))
        adapters = (each.path for each in options.lora)
        check_writable(stats_json, model, draft_model, *read, *adapters)
    if learn is not None:
        check_kept(fresh=fresh)
    asked = prompt()
    path = find_model(model, quiet=quiet)

    from edge_conflayers.cli.sources import SourceColours
    from edge_conflayers.completions.request import TextRequest
    from edge_conflayers.completions.writing import write
    from edge_conflayers.decoding.stats import Stats
    from edge_conflayers.engine.sampling import RANDOM_SEEDS, SamplerSettings
    from edge_conflayers.text_generator import TextGenerator

    settings = SamplerSettings(
        **constraint_arguments(**constraints), **sampler_arguments(**drawing)
    )
    second = find_draft_model(draft_model, (method,), quiet=quiet)
    stats = Stats()
    colours = SourceColours() if show_draft else None
    interrupted = False
    with (
        Progress(loading(path), quiet=quiet) as progress,
        TextGenerator(
            path,
            method=method,
            n_ctx=ctx,
            threads=threads,
            gpu_layers=gpu_layers,
            kernels=kernels,
            provider=provider,
            draft_model=second,
            epsilon=epsilon,
            options=options,
            fresh=fresh,
        ) as writer,
    ):
        tokens = asked.tokens(writer.model)
        max_tokens = None if predict < 0 else predict
        session = writer.open(len(tokens), max_tokens)
        progress.end()
        notes = [] if quiet else [_room_note(session.n_ctx - len(tokens), predict)]
        if writer.method_name != method and not quiet:
            notes.append(session.why_plain)
        _tell(notes)
        reading = Reading(progress, session, len(tokens))
        request = TextRequest(tokens, settings, max_tokens, stop, before_batch=reading)
        drawn: list[int] = []
        try:
            _show(write(writer, request, stats), drawn, colours, progress)
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
            show_stats(stats, used, random_seed=seed if drawing["seed"] in RANDOM_SEEDS else None)
            _tell([_incomplete_note(settings, stats)])
        if stats_json is not None:
            about = {"model": str(path), "method": used, "seed": seed}
            write_json(stats_json, {**about, **stats.to_json()})
        if learn is not None and not interrupted:
            interrupted = _learn(writer, tokens, drawn, learn, progress, quiet=quiet)
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


def _show(
    pieces: Generator[Piece, None, None],
    drawn: list[int],
    colours: SourceColours | None,
    progress: Progress,
) -> None:
    """Writes a text to standard output as it comes.

    Args:
        drawn: gets its tokens.
        progress: what was shown before it, which its first piece ends.
    """
    with progress, closing(pieces):  # an interrupt still completes the statistics
        for piece in pieces:
            progress.end()
            if piece.token is not None:
                drawn.append(piece.token)
            sys.stdout.write(colours.mark(piece.parts) if colours else piece.text)
            sys.stdout.flush()


def _learn(
    writer: TextGenerator,
    prompt: list[int],
    text: list[int],
    seconds: float,
    progress: Progress,
    *,
    quiet: bool,
) -> bool:
    """Teaches the next-state head by a text. Returns whether it was interrupted."""
    from edge_conflayers.tune.after_text import learn_after_text

    progress.begin("learning from the text", seconds, "seconds", at_once=True)
    try:
        taught = learn_after_text(
            *(writer.model, writer.learned, prompt, text),
            seconds=seconds,
            threads=writer.threads,
            on_progress=lambda so_far: progress.update(so_far.seconds, more=so_far.label),
        )
    except KeyboardInterrupt:
        return True
    finally:
        progress.end()
    if taught is None:
        _tell([] if quiet else ["too little text to learn from; give a longer --learn"])
        return False
    if not quiet:
        show_taught(taught, err=True)
    return taught.interrupted
