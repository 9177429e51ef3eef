"""``edge-conflayers models``: list, pull, path and remove the models of the registry."""

from __future__ import annotations

import json

import click

from edge_conflayers.cli.pulling import pull_progress
from edge_conflayers.cli.terminal import print_table
from edge_conflayers.errors import BadInput
from edge_conflayers.hub import models as store
from edge_conflayers.hub.registry import ModelInfo, lookup, registry


@click.group()
def models() -> None:
    """The models that are known by name: which there are, and those on this machine."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every field.")
def list_models(as_json: bool) -> None:
    """List the registry: name, size, licence, pulled or not."""
    infos = list(registry().values())
    if as_json:
        click.echo(json.dumps([_record(info) for info in infos], indent=2))
        return
    rows = [
        (
            info.name,
            f"{info.size / 1e6:.0f} MB",
            info.licence,
            "pulled" if store.cached_path(info.name) else "not pulled",
            f"{info.description} ({info.quantization}, {info.architecture}, {info.layers} layers)",
        )
        for info in infos
    ]
    header = ("name", "size", "licence", "here", "what")
    print_table(header, rows, numbers=False)


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--verify", is_flag=True, help="Check the SHA-256 of what is here; refetch if wrong.")
def pull(names: tuple[str, ...], verify: bool) -> None:
    """Fetch models into the cache, and print where each one is.

    An interrupted pull goes on where it stopped.
    """
    infos = [lookup(name) for name in names]
    for info in infos:
        with pull_progress() as progress:
            path = store.pull(info.name, progress, recheck=verify)
        click.echo(f"{info.name}  {path}")
        click.echo(f"{info.name}: licence {info.licence}, {info.licence_url}", err=True)


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the path of a pulled model, and nothing else."""
    file = store.cached_path(name)
    if file is None:
        raise BadInput(f"{name} is not pulled: run `edge-conflayers models pull {name}` first")
    click.echo(file)


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Delete pulled models, unfinished pulls included."""
    infos = [lookup(name) for name in names]
    for info in infos:
        removed = store.remove(info.name)
        click.echo(f"{info.name}: {'removed' if removed else 'was not pulled'}")


def _record(info: ModelInfo) -> dict[str, object]:
    file = store.cached_path(info.name)
    return {
        "name": info.name,
        "description": info.description,
        "architecture": info.architecture,
        "quantization": info.quantization,
        "layers": info.layers,
        "size": info.size,
        "sha256": info.sha256,
        "licence": info.licence,
        "licence_url": info.licence_url,
        "cached": file is not None,
        "path": str(file) if file else None,
    }
