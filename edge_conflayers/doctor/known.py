"""What is learned about a model already."""

from __future__ import annotations

from edge_conflayers.doctor.section import Section
from edge_conflayers.learned import Learned


def examine_known(learned: Learned) -> Section:
    """What `tune` and earlier texts have left for this model, machine and number of threads."""
    section = Section("learned")
    head, bridges, exits = learned.load_head(), learned.load_bridges(), learned.load_exits()
    sets = learned.skip_sets()
    section.data = {
        "head": head is not None,
        "bridges": [list(block) for block in bridges.blocks] if bridges else [],
        "bridges_predicted_speedup": bridges.prediction.speed if bridges else None,
        "exits": list(exits.layers) if exits else [],
        "skip_sets": {each.kind: each.found.prediction.speed for each in sets},
        "costs": sets.costs is not None,
        "methods": sorted(sets.others),
    }
    section.tell(
        "next-state head",
        f"taught with {sum(head.written.values())} tokens" if head else "none",
    )
    section.tell(
        "bridge",
        "; ".join(f"layers {begin} to {end - 1}" for begin, end in bridges.blocks)
        + f", predicted {bridges.prediction.speed:.2f} over plain"
        if bridges
        else "none",
    )
    section.tell("exits", f"after {', '.join(map(str, exits.layers))} layers" if exits else "none")
    best = max((each.found.prediction.speed for each in sets), default=None)
    section.tell(
        "skip sets",
        "none"
        if best is None
        else f"for {len(sets)} kinds of prompts, the best predicted {best:.2f} over plain",
    )
    section.tell("step costs", "measured" if sets.costs is not None else "not measured yet")
    if sets.others:
        section.tell("methods", f"{', '.join(sorted(sets.others))} went on learning from texts")
    return section
