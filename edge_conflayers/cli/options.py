"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from edge_conflayers.cli.completing import ModelName, one_of
from edge_conflayers.cli.help import Option, all_of, group
from edge_conflayers.cli.pulling import find_model
from edge_conflayers.cli.streams import ArgumentText
from edge_conflayers.exits import DEFAULT_EPSILON
from edge_conflayers.method_names import METHOD_NAMES

if TYPE_CHECKING:
    from edge_conflayers.engine.binding import KernelChoice


def count_option(*names: str, least: int = 1, default: int | None = None, help: str) -> Option:
    """A number of things, at least ``least`` of them; None without a default."""
    return click.option(
        *names,
        type=click.IntRange(min=least),
        default=default,
        show_default=default is not None,
        help=help,
    )


def file_option(*names: str, required: bool = False, help: str) -> Option:
    """A file or folder, as a ``Path``; None if it is not given."""
    return click.option(*names, type=click.Path(path_type=Path), required=required, help=help)


def predict_option(default: int, *, least: int = 1, help: str) -> Option:
    """How long texts get."""
    return count_option("-n", "--predict", least=least, default=default, help=help)


def prompts_option(*, required: bool = False, help: str) -> Option:
    """A file of prompts, for ``bench.workloads.load``."""
    return file_option("--prompts", "prompts_file", required=required, help=help)


def fresh_option(help: str) -> Option:
    """Not to begin with what was learned before."""
    return click.option("--fresh", is_flag=True, help=help)


def exact_reuse_option(*, default: bool) -> Option:
    """How much of its cache a text goes on from (``TextGenerator``)."""
    return click.option(
        "--exact-reuse/--no-exact-reuse",
        default=default,
        show_default=True,
        help="Use what a cache holds of a prompt again only in whole batches of 512 tokens, so that"
        " the text is a fresh start's to the bit; or all of it, as llama.cpp does: the next turn of"
        " a conversation begins sooner, and may part at a close tie.",
    )


model_argument = click.argument("model", type=ModelName())
raw_option = click.option(
    "--raw", is_flag=True, help="Give prompts as they are, without the chat template."
)
special_option = click.option(
    "--special",
    "--parse-special",
    "special",
    is_flag=True,
    help="With --raw: names of special tokens in the prompt, such as <|fim_prefix|>, stand for the"
    " tokens (llama.cpp's parse_special), as for fill-in-the-middle and hand-made turns.",
)
json_option = file_option(
    "--json",
    "json_file",
    help="Write the result here as JSON; - for standard output, which then holds nothing else.",
)
_CONTEXT = (
    click.option(
        "-c",
        "--ctx-size",
        "ctx",
        type=int,
        help="Tokens that fit in the context; 0 for what the model was trained for."
        "  [default: what is needed, at least 4096]",
    ),
)
_DEVICE = (
    count_option("-t", "--threads", help="CPU threads.  [default: physical cores]"),
    click.option(
        "-ngl",
        "--gpu-layers",
        type=int,
        default=0,
        show_default=True,
        help="Layers on the GPU, if built for one; -1 for all.",
    ),
)


def _kernels_option(upstream: KernelChoice, text: str) -> Option:
    """``--kernels``, for ``Model``, where "upstream" means this choice; None if it is not given."""
    choices = {None: None, "ecl": "ecl", "upstream": upstream}
    return click.option(
        "--kernels",
        type=click.Choice(["ecl", "upstream"]),
        callback=lambda ctx, param, value: choices[value],
        help=f"{text}  [default: ecl]",
    )


kernels_option = _kernels_option(
    "upstream",
    "CPU kernels: ours, which check a draft of a few tokens in little more than one token's time,"
    " or upstream's, token by token. The text is plain decoding's with either; the two round"
    " differently, so it can part between them at a close tie.",
)
measured_kernels_option = _kernels_option(
    "upstream-as-is",
    "CPU kernels: ours, or upstream's with its own batches, in which a token's bits depend on the"
    " others.",
)


provider_option = click.option(
    "--provider",
    metavar="[cpu|cuda|dml|coreml]",
    shell_complete=one_of(("cpu", "cuda", "dml", "coreml")),
    help="What runs a folder that `export` wrote, if this build of ONNX Runtime has it."
    "  [default: cpu]",
)


draft_model_option = click.option(
    "--draft-model",
    type=ModelName(),
    metavar="MODEL",
    help="Second model that drafts in the methods draft-model and auto-draft-model: a .gguf file,"
    " or any other MODEL that `run` takes.",
)


epsilon_option = click.option(
    "--epsilon",
    type=click.FloatRange(0.0, 1.0),
    help="Accuracy that the method dssd asks of its exits: the share of drafted tokens that are to"
    f" be right. Less drafts more, with more errors.  [default: {DEFAULT_EPSILON}]",
)


class MethodChoice(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """One of ``methods.METHODS``. Help and completion use ``METHOD_NAMES``, without the library."""

    name = "method"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(METHOD_NAMES)}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in METHOD_NAMES and value not in (names := method_names()):
            self.fail(f"there is no method '{value}'; choose from {', '.join(names)}", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return one_of(METHOD_NAMES)(ctx, param, incomplete)


def method_option(help: str) -> Option:
    """How to decode."""
    return click.option(
        "--method", type=MethodChoice(), default="auto", show_default=True, help=help
    )


def method_names() -> tuple[str, ...]:
    """The methods of this package, and any that a program has added to the table."""
    from edge_conflayers.methods import METHODS

    return tuple(METHODS)


def find_draft_model(
    name: str | None, methods: Iterable[str], *, quiet: bool = False
) -> Path | None:
    """The file of the draft model that a user names for these methods, pulled if it has to be.

    Args:
        quiet: show nothing of a pull.

    Raises:
        BadInput: none of the methods uses one.
    """
    from edge_conflayers.methods import check_draft_model

    if name is None:
        return None
    check_draft_model(methods, given=True)
    return find_model(name, quiet=quiet)


class StopText(ArgumentText):
    """A stop string, in which escapes stand for what shells make hard to type."""

    name = "stop"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        return _ESCAPE.sub(lambda found: _ESCAPES[found[1]], text)


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_ESCAPE = re.compile(r"\\([nrt\\])")

stop_option = click.option(
    "--stop",
    type=StopText(),
    multiple=True,
    metavar="TEXT",
    help=r"Text that ends the answer, and is not shown; \n, \t and \\ stand for a line end, a tab"
    " and a backslash. Repeatable.",
)
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Nothing on standard error but what goes wrong."
)


device_options = group("Machine", *_DEVICE)
context_options = all_of((group("Model", *_CONTEXT), device_options))
