"""The command line: one module a command."""

from __future__ import annotations

import sys
from typing import Any

import click

from edge_conflayers import __version__
from edge_conflayers.cli.bench import bench
from edge_conflayers.cli.cost import cost
from edge_conflayers.cli.interrupts import delivered
from edge_conflayers.cli.models import models
from edge_conflayers.cli.run import run
from edge_conflayers.cli.tune import tune
from edge_conflayers.errors import EdgeConflayersError


class _Group(click.Group):
    """Turns what goes wrong into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except EdgeConflayersError as error:
            if ctx.params["debug"]:
                raise
            message, code = str(error), error.exit_code
        except MemoryError as error:
            if ctx.params["debug"]:
                raise
            message, code = f"out of memory ({error or 'no more to give'}); use a smaller model", 1
        except OSError as error:
            if ctx.params["debug"]:
                raise
            message, code = f"{error}; --debug shows where", 1
        click.echo(f"edge-conflayers: {' '.join(message.split())}", err=True)
        sys.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-conflayers")
@click.option("--debug", is_flag=True, help="Show tracebacks and llama.cpp's own log.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Makes one GGUF model faster by itself, and never changes its text."""
    ctx.with_resource(delivered())
    if debug:
        from edge_conflayers.engine import binding

        binding.log.show = True


for command in (run, models, bench, cost, tune):
    main.add_command(command)
