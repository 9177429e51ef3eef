"""What ``tune`` has found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from edge_conflayers.cli.taught import show_taught
from edge_conflayers.cli.terminal import print_table

if TYPE_CHECKING:
    from edge_conflayers.bridges.bridge import Bridges
    from edge_conflayers.layer_search.skip_sets import SkipSet
    from edge_conflayers.tune.teach_exits import TaughtResult
    from edge_conflayers.tune.tuning import Tuned

_HEADER = (
    *("kind", "attention dropped", "MLP dropped", "accepted", "c", "stop under", "at most"),
    "predicted speed-up",
)


def tuned_json(tuned: Tuned) -> dict[str, Any]:
    """What was found, JSON-able."""
    taught, bridges = tuned.taught, tuned.bridges
    return {
        "skip_sets": [_set_json(each) for each in tuned.sets],
        "next_state_head": None
        if taught is None
        else {
            "tokens": taught.tokens,
            "foreseen_first": taught.foreseen[0],
            "foreseen_in_four": taught.foreseen[1],
        },
        "no_next_state_head": tuned.no_head or None,
        "bridge": None
        if bridges is None
        else {
            "begin": bridges.blocks[0][0],
            "end": bridges.blocks[0][1],
            "speed": bridges.prediction.speed,
        },
        "without_text": tuned.without_text,
        "interrupted": tuned.interrupted,
    }


def _set_json(found: SkipSet) -> dict[str, Any]:
    mask, prediction = found.found.mask, found.found.prediction
    return {
        "kind": found.kind,
        "attention_dropped": sorted(map(int, mask.attention)),
        "mlp_dropped": sorted(map(int, mask.mlp)),
        "acceptance": prediction.acceptance,
        "c": found.found.c,
        "stop_probability": prediction.stop_probability,
        "max_draft": prediction.max_draft,
        "speed": prediction.speed,
    }


def exits_json(result: TaughtResult) -> dict[str, Any]:
    """Taught exits, JSON-able."""
    return {
        "exits": [
            {"layers": layers, "foreseen": share}
            for layers, share in zip(result.exits.layers, result.foreseen, strict=True)
        ],
        "tokens": result.tokens,
        "interrupted": result.interrupted,
    }


def show_tuned(tuned: Tuned) -> None:
    """Prints what was found."""
    _show_sets(tuned.sets)
    if tuned.taught is not None:
        show_taught(tuned.taught)
    if tuned.bridges is not None:
        _show_bridges(tuned.bridges)
    for kind in tuned.without_text:
        click.echo(f"{kind}: too little text to search over; give longer or other prompts")


def show_exits(result: TaughtResult) -> None:
    """Prints how good taught exits are."""
    for layer, share in zip(result.exits.layers, result.foreseen, strict=True):
        click.echo(f"exit after {layer} layers: foresees {share:.0%} of the next tokens")
    click.echo(f"taught with texts of {result.tokens} tokens; use it by --method dssd")


def _show_bridges(bridges: Bridges) -> None:
    (begin, end), speed = bridges.blocks[0], bridges.prediction.speed
    click.echo(f"bridge: layers {begin} to {end - 1} replaced, predicted {speed:.2f} over plain")


def _show_sets(found: Sequence[SkipSet]) -> None:
    if not found:
        return
    rows = []
    for each in found:
        mask, prediction = each.found.mask, each.found.prediction
        rows.append(
            (
                each.kind,
                ranges(mask.attention),
                ranges(mask.mlp),
                f"{prediction.acceptance:.0%}",
                f"{each.found.c:.2f}",
                f"{prediction.stop_probability:.2f}",
                str(prediction.max_draft),
                f"{prediction.speed:.2f}",
            )
        )
    print_table(_HEADER, rows)
    if all(each.found.prediction.speed <= 1 for each in found):
        click.echo("plain decoding is faster than drafting with any set that was tried")


def ranges(layers: Iterable[int]) -> str:
    """Layers as "3-5,9"; "none" if there are none."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(parts) or "none"
