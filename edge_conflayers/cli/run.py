"""``edge-conflayers run``: text from a model, as fast as this machine gives it."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.cli.options import (
    MethodChoice,
    context_options,
    draft_model_option,
    epsilon_option,
    file_option,
    find_draft_model,
    fresh_option,
    kernels_option,
    model_argument,
    predict_option,
    provider_option,
    raw_option,
    sampling_options,
    special_option,
)
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.streams import ArgumentText, read_input, read_text
from edge_conflayers.cli.taught import show_taught
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.cli.sources import SourceColours
    from edge_conflayers.decoding.stats import Stats
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.language_model import LanguageModel
    from edge_conflayers.engine.sampling import SamplerSettings
    from edge_conflayers.text_generator import TextGenerator


@click.command()
@model_argument
@click.option("-p", "--prompt", type=ArgumentText(), help="The prompt.  [default: standard input]")
@file_option("-f", "--file", "prompt_file", help="Read the prompt from a file.")
@predict_option(
    512,
    least=-1,
    help="Most tokens to write; -1 for as many as fit in what the model was trained for, 0 for none"
    " (the prompt is still read).",
)
@context_options
@sampling_options
@kernels_option
@provider_option
@file_option(
    "--grammar-file",
    help="Grammar that the text must follow: GBNF, or llguidance's Lark after %llguidance.",
)
@click.option("--json-schema", type=ArgumentText(), help="JSON schema that the text must follow.")
@click.option("--system", type=ArgumentText(), help="System message of the chat template.")
@raw_option
@special_option
@click.option(
    "--method",
    type=MethodChoice(),
    default="auto",
    show_default=True,
    help="How to decode: `auto` chooses each round who drafts, or nobody; `plain` goes token by"
    " token. On the CPU the text is the same.",
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
def run(
    model: str,
    prompt: str | None,
    prompt_file: Path | None,
    predict: int,
    ctx: int | None,
    threads: int | None,
    gpu_layers: int,
    kernels: KernelChoice | None,
    provider: str | None,
    grammar_file: Path | None,
    json_schema: str | None,
    system: str | None,
    raw: bool,
    special: bool,
    method: str,
    draft_model: str | None,
    epsilon: float | None,
    show_draft: bool,
    fresh: bool,
    learn: float | None,
    stats_json: Path | None,
    **sampling: Any,
) -> None:
    """Write text with MODEL: a .gguf file, a name of `models list`, org/repo or org/repo:QUANT of
    Hugging Face, or the address of a .gguf file, which is pulled on first use; or a folder that
    `export` wrote, which runs on ONNX Runtime.
    """
    if stats_json is not None:
        check_writable(stats_json, model, draft_model, prompt_file, grammar_file)
    if learn is not None and fresh:
        raise BadInput("--learn keeps what is learned and --fresh does not; choose one")
    text = _prompt(prompt, prompt_file)
    path = find_model(model)

    from edge_conflayers.chat import prompt_tokens
    from edge_conflayers.cli.sources import SourceColours
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
        draft_model=find_draft_model(draft_model, (method,)),
        epsilon=epsilon,
        fresh=fresh,
    ) as writer:
        tokens = prompt_tokens(writer.model, text, system=system, raw=raw, parse_special=special)
        max_tokens = None if predict < 0 else predict
        session = writer.open(len(tokens), max_tokens)
        _tell_of_room(session.n_ctx - len(tokens), predict)
        if writer.method_name != method:
            click.echo(f"note: {session.why_plain}", err=True)
        written = writer.generate(tokens, settings, max_tokens=max_tokens, stats=stats)
        drawn: list[int] = []
        try:
            _stream(writer.model, _noted(written, drawn), stats, colours)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            writer.save()
        sys.stdout.write("\n")
        sys.stdout.flush()
        if colours is not None:
            colours.print_legend(stats.sources)
        used, seed = writer.method_name, settings.seed
        _show(stats, used, random_seed=seed if sampling["seed"] in RANDOM_SEEDS else None)
        if settings.constraint is not None and stats.finish_reason in ("length", "context"):
            _tell_incomplete(settings.constraint[0], stats)
        if stats_json is not None:
            about = {"model": str(path), "method": used, "seed": seed}
            write_json(stats_json, {**about, **stats.to_json()})
        if learn is not None and not interrupted:
            interrupted = _learn(writer, tokens, drawn, learn)
    if interrupted:
        sys.exit(130)


def _tell_of_room(room: int, predict: int) -> None:
    """Says beforehand that a text may not get as long as it was asked to.

    Args:
        room: tokens of the context after the prompt; the text's last one needs none.
    """
    if predict > room + 1:
        click.echo(
            f"note: the context has room for {room + 1} tokens after the prompt, so that the text"
            f" ends before -n {predict}; see -c",
            err=True,
        )


def _tell_incomplete(kind: str, stats: Stats) -> None:
    """Says that a text may not follow what it must, because it was cut off."""
    option = "-n" if stats.finish_reason == "length" else "-c"
    click.echo(
        f"note: the text was cut off after {stats.tokens} tokens, so that it may not be all that"
        f" the {kind} asks for; raise {option}",
        err=True,
    )


def _prompt(prompt: str | None, prompt_file: Path | None) -> str:
    if prompt is not None and prompt_file is not None:
        raise BadInput("both -p and -f are given; choose one")
    if prompt_file is not None:
        return read_text(prompt_file, "prompt file")
    if prompt is not None:
        return prompt
    return read_input()


def _sampler_settings(
    grammar_file: Path | None, json_schema: str | None, temp: float, **rest: Any
) -> SamplerSettings:
    from edge_conflayers.engine.sampling import SamplerSettings

    grammar = None
    if grammar_file is not None and json_schema is not None:
        raise BadInput("both --grammar-file and --json-schema are given; choose one")
    if grammar_file is not None:
        grammar = read_text(grammar_file, "grammar file")
    return SamplerSettings(temperature=temp, grammar=grammar, json_schema=json_schema, **rest)


def _noted(tokens: Generator[int, None, None], noted: list[int]) -> Generator[int, None, None]:
    """The same tokens, which are added to a list."""
    with closing(tokens):
        for token in tokens:
            noted.append(token)
            yield token


def _learn(writer: TextGenerator, prompt: list[int], text: list[int], seconds: float) -> bool:
    """Teaches the next-state head by a text. Returns whether it was interrupted."""
    from edge_conflayers.tune.after_text import learn_after_text

    try:
        taught = learn_after_text(
            *(writer.model, writer.learned, prompt, text), seconds=seconds, threads=writer.threads
        )
    except KeyboardInterrupt:
        return True
    if taught is None:
        click.echo("too little text to learn from; give a longer --learn", err=True)
        return False
    show_taught(taught, err=True)
    return taught.interrupted


def _stream(
    model: LanguageModel,
    written: Generator[int, None, None],
    stats: Stats,
    colours: SourceColours | None,
) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with closing(written):  # an interrupt still completes the statistics
        for token in written:
            text = decoder.decode(model.piece(token))
            sys.stdout.write(colours.mark(text, stats.sources[-1]) if colours else text)
            sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", final=True))


def _show(stats: Stats, method: str, *, random_seed: int | None = None) -> None:
    parts = [f"{stats.tokens} tokens", f"{stats.tokens_per_second:.1f} tokens/s"]
    if method != "plain":
        rate = stats.acceptance_rate
        parts += [
            f"{stats.tokens_per_round:.2f} tokens/round",
            f"{'no' if rate is None else f'{rate:.0%} of'} drafted tokens accepted",
        ]
        attention, mlp = (
            len(stats.drafter.get(f"{kind}_dropped", ())) for kind in ("attention", "mlp")
        )
        if attention or mlp:
            parts.append(f"{attention} attention and {mlp} MLP layers dropped")
        parts.append(f"draft {stats.draft_seconds:.2f} s")
    parts.append(f"verify {stats.verify_seconds:.2f} s")
    if method != "plain":
        parts.append(f"learning {stats.search_seconds:.2f} s")
    parts.append(f"prompt {stats.prompt_tokens} tokens in {stats.prompt_seconds:.2f} s")
    if random_seed is not None:
        parts.append(f"seed {random_seed}")
    if stats.finish_reason == "interrupted":
        parts.append("interrupted")
    elif stats.finish_reason == "context":
        parts.append("stopped: the context is full (-c)")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[dim]{method}: {', '.join(parts)}[/dim]")
