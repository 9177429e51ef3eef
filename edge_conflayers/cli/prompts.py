"""Options that say what a text begins with: a prompt, a conversation, and the chat template."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.chat_templates import CHAT_TEMPLATES
from edge_conflayers.cli.completing import one_of
from edge_conflayers.cli.help import Function, Option, group
from edge_conflayers.cli.options import raw_option, special_option
from edge_conflayers.cli.streams import ArgumentText, read_input, read_text
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.chat import Message, TemplateOptions
    from edge_conflayers.engine.language_model import LanguageModel

STANDARD_INPUT = Path("-")

system_option = click.option(
    "--system", type=ArgumentText(), help="System message of the chat template."
)
_TEMPLATE: tuple[Option, ...] = (
    click.option(
        "--chat-template",
        type=ArgumentText(),
        metavar="FILE|NAME",
        shell_complete=one_of(CHAT_TEMPLATES, or_file=True),
        help="Chat template: a file in Jinja, one of llama.cpp's names such as chatml or llama3, or"
        " the template itself.  [default: the model's]",
    ),
    click.option(
        *("--template-kwargs", "--chat-template-kwargs", "template_kwargs"),
        type=ArgumentText(),
        metavar="JSON",
        help='Variables of the template, such as {"enable_thinking": false}.',
    ),
)


def template_options(command: Function) -> Function:
    """Gives a command the options of the chat template, as one argument ``template``, a
    ``TemplateOptions``."""

    @functools.wraps(command)
    def with_template(
        *, chat_template: str | None, template_kwargs: str | None, **given: Any
    ) -> Any:
        return command(template=_read_template(chat_template, template_kwargs), **given)

    return group("Prompt", *_TEMPLATE)(with_template)


def _read_template(template: str | None, kwargs: str | None) -> TemplateOptions:
    from edge_conflayers.chat.options import (
        JINJA_SIGNS,
        TemplateOptions,
        read_template_kwargs,
    )

    if template is not None and not any(sign in template for sign in JINJA_SIGNS):
        if Path(template).is_file():
            template = read_text(Path(template), "chat template")
        elif Path(template).suffix or Path(template).parent != Path():
            raise BadInput(f"the chat template {template} is not there; give a file or a name")
    return TemplateOptions(template, {} if kwargs is None else read_template_kwargs(kwargs))


@dataclass(frozen=True)
class Prompt:
    """What a text begins with.

    Attributes:
        text: the prompt; None where the messages are all.
        messages: turns before it.
        system, raw, special, template: as for ``chat.prompt_tokens``.
    """

    text: str | None
    messages: list[Message]
    system: str | None
    raw: bool
    special: bool
    template: TemplateOptions

    def tokens(self, model: LanguageModel) -> list[int]:
        """The prompt's tokens.

        Raises:
            BadInput: as ``chat.prompt_tokens`` does.
        """
        from edge_conflayers.chat import prompt_tokens

        return prompt_tokens(
            model,
            self.text,
            messages=self.messages,
            system=self.system,
            raw=self.raw,
            parse_special=self.special,
            options=self.template,
        )


_PROMPT: tuple[Option, ...] = (
    click.option(
        "-p", "--prompt", type=ArgumentText(), help="The prompt.  [default: standard input]"
    ),
    click.option(
        *("-f", "--file", "prompt_file"),
        type=click.Path(path_type=Path),
        help="Read the prompt from a file; - for standard input.",
    ),
    click.option(
        *("--messages", "messages_file"),
        type=click.Path(path_type=Path),
        help="Read a conversation: messages of OpenAI's API as a JSON list or as JSON lines; - for"
        " standard input. A prompt, if given, is the next turn; an answer at the end goes on.",
    ),
    system_option,
    raw_option,
    special_option,
)


def prompt_options(command: Function) -> Function:
    """Gives a command the options of the prompt and of its template, as arguments ``prompt``, a
    function that reads a ``Prompt``, and ``prompt_files``, what it reads."""

    @functools.wraps(command)
    def with_prompt(
        *,
        prompt: str | None,
        prompt_file: Path | None,
        messages_file: Path | None,
        system: str | None,
        raw: bool,
        special: bool,
        template: TemplateOptions,
        **given: Any,
    ) -> Any:
        def read() -> Prompt:
            if prompt_file == STANDARD_INPUT == messages_file:
                raise BadInput("both -f and --messages are standard input; choose one")
            messages = [] if messages_file is None else _read_messages(messages_file)
            text = _read_prompt(prompt, prompt_file, messages_file)
            return Prompt(text, messages, system, raw, special, template)

        return command(prompt=read, prompt_files=(prompt_file, messages_file), **given)

    return group("Prompt", *_PROMPT)(template_options(with_prompt))


def _read_messages(file: Path) -> list[Message]:
    from edge_conflayers.chat.messages import read_messages

    if file == STANDARD_INPUT:
        return read_messages(read_input(), "standard input")
    return read_messages(read_text(file, "messages file"), f"the messages file {file}")


def _read_prompt(prompt: str | None, file: Path | None, messages: Path | None) -> str | None:
    if prompt is not None and file is not None:
        raise BadInput("both -p and -f are given; choose one")
    if prompt is not None:
        return prompt
    if file is not None:
        return read_input() if file == STANDARD_INPUT else read_text(file, "prompt file")
    return None if messages is not None else read_input()
