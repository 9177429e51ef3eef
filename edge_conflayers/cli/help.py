"""Help as a page: options in groups, examples at the end, commands in the order of their use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import click

Function = Callable[..., Any]
Option = Callable[[Function], Function]

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
"""Of every command, also where it is not asked for by way of the main one."""

_OTHERS = "Options"
_titles: WeakKeyDictionary[click.Parameter, str] = WeakKeyDictionary()


def all_of(options: Sequence[Option]) -> Option:
    """One decorator for several options, which the help lists in this order."""

    def decorate(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def group(title: str, *options: Option) -> Option:
    """One decorator for several options, which stand under a title in the help of a ``Command``.
    Those that have a title keep it."""

    def decorate(command: Function) -> Function:
        before = tuple(getattr(command, "__click_params__", ()))
        command = all_of(options)(command)
        for param in getattr(command, "__click_params__", ()):
            if param not in before:
                _titles.setdefault(param, title)
        return command

    return decorate


class Command(click.Command):
    """A command whose help has its options in groups, and examples at the end.

    Args:
        examples: whole command lines.
    """

    def __init__(self, *given: Any, examples: Sequence[str] = (), **named: Any) -> None:
        named.setdefault("context_settings", dict(HELP_OPTIONS))
        super().__init__(*given, **named)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The groups, each where its first option stands; options of no group come last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if not isinstance(param, click.Argument) and (record := param.get_help_record(ctx)):
                groups.setdefault(_titles.get(param, _OTHERS), []).append(record)
        if _OTHERS in groups:
            groups[_OTHERS] = groups.pop(_OTHERS)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, which are not wrapped, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Group(click.Group):
    """Commands in the order in which they were added."""

    command_class = Command

    def __init__(self, *given: Any, **named: Any) -> None:
        named.setdefault("context_settings", dict(HELP_OPTIONS))
        super().__init__(*given, **named)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
