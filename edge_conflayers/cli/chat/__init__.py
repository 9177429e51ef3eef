"""``edge-conflayers chat``: a conversation with a model.

- ``reading``: the user's messages, from a terminal or a pipe
- ``typed``: blocks of several lines
- ``commands``: what begins with a slash
- ``settings``: what ``/set`` changes
- ``loop``: messages, answers and commands, one after the other
- ``interrupts``: Ctrl-C while an answer is written
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.chat.settings import Settings, settings_options
from edge_conflayers.cli.help import Command, group
from edge_conflayers.cli.learning import check_learning, learn_option
from edge_conflayers.cli.model_options import model_options
from edge_conflayers.cli.options import (
    context_options,
    draft_model_option,
    epsilon_option,
    exact_reuse_option,
    find_draft_model,
    fresh_option,
    kernels_option,
    method_option,
    model_argument,
    provider_option,
    quiet_option,
)
from edge_conflayers.cli.progress import Progress
from edge_conflayers.cli.prompts import system_option, template_options
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.stages import loading
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.chat import TemplateOptions
    from edge_conflayers.conversation.conversation import Conversation
    from edge_conflayers.engine.binding import KernelChoice
    from edge_conflayers.engine.language_model import LanguageModel
    from edge_conflayers.engine.model_options import ModelOptions
    from edge_conflayers.tune.idle.teacher import IdleTeacher


@click.command(
    cls=Command,
    short_help="Talk with a model.",
    examples=(
        "edge-conflayers chat smollm2-135m",
        'edge-conflayers chat model.gguf --system "You are brief." --temp 0.7 --stats',
        "edge-conflayers chat model.gguf --resume",
        "edge-conflayers chat model.gguf < lines.txt > answers.txt",
    ),
)
@model_argument
@group("Prompt", system_option)
@template_options
@group(
    "Conversation",
    click.option(
        "--resume", is_flag=True, help="Go on with the last conversation with this model."
    ),
    click.option("--no-transcript", is_flag=True, help="Keep nothing of the conversation on disk."),
)
@settings_options
@group(
    "Decoding",
    method_option("How to decode, as for `run`. On the CPU the text is the same."),
    draft_model_option,
    epsilon_option,
    exact_reuse_option(default=False),
    learn_option,
    fresh_option("Neither use nor keep what is learned about this model."),
)
@context_options
@model_options
@group("Machine", kernels_option, provider_option)
@group(
    "Output",
    click.option(
        "--stats", is_flag=True, help="Show tokens per second and more after each answer."
    ),
    click.option(
        "--show-draft", is_flag=True, help="Colour answers by who drafted them, on a terminal."
    ),
    quiet_option,
)
def chat(
    model: str,
    system: str | None,
    template: TemplateOptions,
    resume: bool,
    no_transcript: bool,
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
    stats: bool,
    show_draft: bool,
    learn: bool,
    fresh: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Talk with MODEL, which is what `run` takes. /help lists the commands.

    Without a terminal each line of standard input is a message, or a command, and standard output
    holds the answers alone.
    """
    path = find_model(model, quiet=quiet)

    from edge_conflayers.cli.chat.loop import Chat
    from edge_conflayers.cli.chat.reading import reader
    from edge_conflayers.engine.session.kv_cache import context_for
    from edge_conflayers.methods import DRAFT_MODEL_METHODS, check_epsilon, uses_exits
    from edge_conflayers.onnx.opening import open_model
    from edge_conflayers.text_generator import TextGenerator

    settings = Settings(values)
    if learn:
        check_learning(method, fresh=fresh)
    check_epsilon((method,), epsilon)
    conversation = _conversation(path, system, resume=resume, kept=not no_transcript)
    second = find_draft_model(draft_model, (method,), quiet=quiet)
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
        ExitStack() as stack,
    ):
        _check_template(loaded, template)
        # Decided once: the free memory, which it depends on, changes.
        n_ctx = context_for(loaded, 0, None, ctx)

        def open_generator(name: str) -> TextGenerator:
            return TextGenerator(
                loaded,
                method=name,
                n_ctx=n_ctx,
                threads=threads,
                kernels=kernels,
                provider=provider,
                draft_model=second if name in DRAFT_MODEL_METHODS else None,
                epsilon=epsilon if uses_exits((name,)) else None,
                exact_reuse=exact_reuse,
                fresh=fresh,
            )

        teacher = stack.enter_context(_teacher_of(loaded, threads)) if learn else None
        with Chat(
            open_generator,
            method,
            conversation,
            settings,
            template=template,
            n_ctx=n_ctx,
            shows_stats=stats,
            show_draft=show_draft,
            teacher=teacher,
            quiet=quiet,
        ) as talk:
            progress.end()
            code = talk.run(reader(conversation.asked))
    sys.exit(code)


def _conversation(path: Path, system: str | None, *, resume: bool, kept: bool) -> Conversation:
    """The conversation that it begins with."""
    from edge_conflayers.conversation.conversation import Conversation
    from edge_conflayers.conversation.transcript import (
        Transcript,
        folder_of,
        latest,
        read_transcript,
    )

    messages = read_transcript(latest(folder_of(path))) if resume else []
    conversation = Conversation(messages, Transcript(folder_of(path)) if kept else None)
    if system is not None:
        conversation.set_system(system)
    return conversation


def _teacher_of(model: LanguageModel, threads: int | None) -> IdleTeacher:
    """Learns from the conversation."""
    from edge_conflayers import machine
    from edge_conflayers.learned import Learned
    from edge_conflayers.tune.idle.teacher import IdleTeacher

    n_threads = machine.threads_to_use(threads)
    return IdleTeacher(model, Learned(model, n_threads), n_threads)


def _check_template(model: LanguageModel, template: TemplateOptions) -> None:
    if model.chat_template is None and template.template is None:
        raise BadInput(
            f"{model.path} has no chat template; give one, such as --chat-template chatml, or have"
            " texts gone on with by `run`"
        )
