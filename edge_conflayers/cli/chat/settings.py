"""How answers are drawn and how they end: options of the command, which ``/set`` changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from edge_conflayers.cli.chat.typed import near
from edge_conflayers.cli.constraint_options import (
    CONSTRAINTS,
    constraint_arguments,
    constraint_options,
)
from edge_conflayers.cli.help import all_of, group
from edge_conflayers.cli.options import predict_option, stop_option
from edge_conflayers.cli.sampling_options import sampler_arguments, sampling_options
from edge_conflayers.errors import BadInput

if TYPE_CHECKING:
    from edge_conflayers.engine.sampling import SamplerSettings

settings_options = all_of(
    (
        group(
            "Text",
            predict_option(
                -1,
                least=-1,
                help="Most tokens of an answer; -1 for as many as fit in the context.",
            ),
            stop_option,
        ),
        constraint_options,
        sampling_options,
    )
)


@click.command(add_help_option=False)
@settings_options
def _settable(**values: Any) -> None:
    """Reads a setting as the command line reads its option."""


class Settings:
    """The values of these options.

    Args:
        values: by the options' names.

    Raises:
        BadInput: a value out of range.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = self._first = dict(values)
        self._constraint = self._read_constraint()  # files are read once, and may go
        self.sampling()

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of an answer; None for as many as fit."""
        predict: int = self._values["predict"]
        return None if predict < 0 else predict

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer."""
        stop: tuple[str, ...] = self._values["stop"]
        return stop

    @property
    def is_random_seed(self) -> bool:
        """Whether each answer draws a seed of its own."""
        from edge_conflayers.engine.sampling import RANDOM_SEEDS

        return self._values["seed"] in RANDOM_SEEDS

    def sampling(self, attempt: int = 0) -> SamplerSettings:
        """How the next answer is drawn.

        Args:
            attempt: answers to the same message before it; each has the next seed.
        """
        from edge_conflayers.engine.sampling import SamplerSettings

        apart = ("predict", "stop", *CONSTRAINTS)
        settings = {name: self._values[name] for name in self._values if name not in apart}
        if attempt and not self.is_random_seed:
            settings["seed"] = (settings["seed"] + attempt) % (2**32 - 1)
        return SamplerSettings(**self._constraint, **sampler_arguments(**settings))

    def _read_constraint(self) -> dict[str, Any]:
        return constraint_arguments(**{name: self._values[name] for name in CONSTRAINTS})

    def set(self, name: str, value: str) -> str:
        """Changes a setting. Returns it as it is then, in one line.

        Args:
            name: of an option without its dashes. What a text must follow is one thing: each such
                option replaces the others.
            value: as for the option; "default" for the one that the conversation began with, "none"
                for no constraint.

        Raises:
            BadInput: an unknown name, or a value that cannot be.
        """
        found, option = _option(name)
        before = self._values, self._constraint
        if value == "default":
            new = self._first[found]
        elif value == "none" and found in CONSTRAINTS:
            new = None
        else:
            try:
                read = _settable.make_context("/set", [f"{option}={value}"])
            except click.UsageError as error:
                raise BadInput(error.format_message()) from None
            new = read.params[found]
        others = dict.fromkeys(CONSTRAINTS) if found in CONSTRAINTS else {}
        self._values = {**self._values, **others, found: new}
        try:
            if found in CONSTRAINTS:
                self._constraint = self._read_constraint()
            self.sampling()
        except BadInput:
            self._values, self._constraint = before
            raise
        return self.shown(name)

    def shown(self, name: str) -> str:
        """A setting and its value, in one line."""
        found, option = _option(name)
        value = self._values[found]
        if found == "logit_bias":
            value = ", ".join(f"{token}{bias:+g}" for token, bias in value.items())
        elif isinstance(value, tuple):
            value = ", ".join(map(repr, value))
        elif found in CONSTRAINTS:
            value = "none" if value is None else " ".join(str(value).split())
        elif value is None:
            value = "the usual ones"
        return f"{option.lstrip('-')} {'none' if value == '' else value}"

    def all_shown(self) -> list[str]:
        """All settings."""
        return [self.shown(each.opts[0]) for each in _settable.params]


def setting_names() -> list[str]:
    """The names of all settings."""
    return [max(each.opts, key=len).lstrip("-") for each in _settable.params]


def completed(name: str, incomplete: str) -> list[CompletionItem]:
    """What the value of a setting may become, as the shell completes its option."""
    for each in _settable.params:
        if name in {option.lstrip("-") for option in each.opts}:
            context = _settable.make_context("/set", [], resilient_parsing=True)
            words = ("default", *(("none",) if each.name in CONSTRAINTS else ()))
            own = [CompletionItem(word) for word in words if word.startswith(incomplete)]
            return [*each.shell_complete(context, incomplete), *own]
    return []


def _option(name: str) -> tuple[str, str]:
    """The name of an option's value, and the option's long name."""
    wanted = name.lstrip("-").replace("_", "-")
    for each in _settable.params:
        if wanted in {option.lstrip("-") for option in each.opts}:
            assert each.name is not None
            return each.name, max(each.opts, key=len)
    raise BadInput(f"there is no setting {name!r}; {near(wanted, setting_names())}")
