"""``edge-conflayers completion``: the script by which a shell completes its commands."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from edge_conflayers.cli.help import Command

_VARIABLE = "_EDGE_CONFLAYERS_COMPLETE"
"""Set by the script; click answers what it asks."""


@click.command(
    cls=Command,
    short_help="Print a script by which the shell completes commands.",
    examples=(
        "edge-conflayers completion bash >> ~/.bash_completion",
        "edge-conflayers completion zsh > ~/.zfunc/_edge-conflayers",
        "edge-conflayers completion fish > ~/.config/fish/completions/edge-conflayers.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script by which SHELL completes commands, options, methods, and models: those known
    by name, those that are pulled, and .gguf files.

    Put it where the shell finds it, as below, and open a new shell. bash needs version 4.4; zsh
    needs `fpath+=~/.zfunc` before `compinit` in ~/.zshrc. To try it in bash or zsh:
    `source <(edge-conflayers completion bash)`.
    """
    root = context.find_root()
    found = get_completion_class(shell)
    assert found is not None
    # Not the class's own: it asks the bash that is here for its version.
    script = ShellComplete.source(found(root.command, {}, "edge-conflayers", _VARIABLE))
    click.echo(script, nl=False)
