"""The command line: one module a command."""

from __future__ import annotations

import sys
from typing import Any

import click

from edge_conflayers import __version__
from edge_conflayers.cli import failures, streams
from edge_conflayers.cli.bench import bench
from edge_conflayers.cli.chat import chat
from edge_conflayers.cli.completion import completion
from edge_conflayers.cli.cost import cost
from edge_conflayers.cli.doctor import doctor
from edge_conflayers.cli.export import export
from edge_conflayers.cli.help import Group
from edge_conflayers.cli.interrupts import delivered
from edge_conflayers.cli.models import models
from edge_conflayers.cli.run import run
from edge_conflayers.cli.serve import serve
from edge_conflayers.cli.train import train
from edge_conflayers.cli.tune import tune


class _Main(Group):
    """Prepares the streams, and turns what goes wrong into one line and an exit code."""

    def main(self, *args: Any, standalone_mode: bool = True, **named: Any) -> Any:
        click_main: Any = super().main
        if not standalone_mode:
            return click_main(*args, standalone_mode=False, **named)
        streams.prepare()
        given = args[0] if args else named.get("args")
        debug = "--debug" in (sys.argv[1:] if given is None else given)
        try:
            code = click_main(*args, standalone_mode=False, **named)
        except SystemExit as exit:
            code = exit.code
        except BaseException as error:
            code = failures.report(error, debug=debug)
        sys.exit(failures.flushed(code if isinstance(code, int) else 0, debug=debug))


@click.group(
    cls=_Main,
    epilog="A first text: edge-conflayers run smollm2-135m -p 'Why is the sky blue?'",
)
@click.version_option(__version__, "-V", "--version", prog_name="edge-conflayers")
@click.option("--debug", is_flag=True, help="Show tracebacks and llama.cpp's own log.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Makes one GGUF model faster by itself, and never changes its text."""
    streams.check_output()
    ctx.with_resource(delivered())
    if debug:
        from edge_conflayers.engine import native

        native.log.show = True
        ctx.call_on_close(lambda: setattr(native.log, "show", False))


for command in (run, chat, serve, models, tune, doctor, bench, cost, train, export, completion):
    main.add_command(command)
