"""Writes docs/commands.md: the help of every command, as the code has it.

    python tools/command_help.py

The lines are as long on every terminal, and the words the same in every locale.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from edge_conflayers.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

_WIDTH = 100
_LOCALES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # where gettext, and so click, looks
_HEAD = """\
# Commands

Every command, as its `--help` has it. This page is written by `python tools/command_help.py`.
"""


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Context]]:
    """A command and those under it, in the order of its help: whole names and contexts."""
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            if below is not None and not below.hidden:
                yield from commands(below, each, context)


def page() -> str:
    """The whole page, in Markdown."""
    before = {name: os.environ.pop(name, None) for name in _LOCALES}
    try:
        parts = [_HEAD]
        for name, context in commands(main, "edge-conflayers"):
            text = context.command.get_help(context).rstrip()
            parts.append(f"## `{name}`\n\n```text\n{text}\n```\n")
        return "\n".join(parts)
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
