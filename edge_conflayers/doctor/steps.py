"""What a model's steps take here, against the time of reading the weights, and what they serve."""

from __future__ import annotations

from dataclasses import dataclass

from edge_conflayers.costs.measure import measure_costs, session_to_measure_in
from edge_conflayers.costs.model import Measurement
from edge_conflayers.doctor.section import Section, size
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.session import TextSession
from edge_conflayers.engine.session.kv_cache import kv_cache_bytes
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.machine.memory_speed import MemoryReading

_CONTEXT = 240  # tokens in the cache, just before the end of a stride of 256
_READ_SECONDS = 0.3  # of memory, right after the steps; not tuned


@dataclass(frozen=True)
class StepFacts:
    """What was found out about a model's steps.

    Attributes:
        verifies_drafts: whether drafts can be verified at all.
        maskable: whether layers can be dropped.
        measured: their costs; None where they could not be measured.
        floor: seconds that reading alone takes; None where that is not known.
    """

    verifies_drafts: bool
    maskable: bool
    measured: Measurement | None = None
    floor: float | None = None


def examine_steps(
    model: LanguageModel, threads: int, weight_bytes: float | None, reading: MemoryReading
) -> tuple[Section, StepFacts]:
    """Measures steps and reads memory again, so that both saw the same machine.

    Args:
        threads: that steps take.
        weight_bytes: that a step over one token reads; None where that is not known.

    Raises:
        EdgeConflayersError: the model cannot be run.
    """
    section = Section("steps")
    with session_to_measure_in(model, threads) as session:
        facts = _tell_what_is_served(section, session)
        try:
            costs = measure_costs(session, contexts=(_CONTEXT,))
        except EdgeConflayersError as error:
            section.tell("times", f"not measured: {error}")
            return section, StepFacts(facts, maskable=False)
    reading.read_for(_READ_SECONDS)
    measured = costs.at[0]
    speed = None if model.on_gpu or weight_bytes is None else reading.fastest
    floor = None
    section.data |= {
        "layer_mask": costs.maskable,
        "context": measured.context,
        "t1_ms": measured.t1 * 1e3,
        "v": {str(n): v for n, v in measured.v.items()},
    }
    section.tell(
        "layer mask",
        "yes: layers can be dropped" if costs.maskable else f"no: not for '{model.architecture}'",
    )
    if speed is not None and weight_bytes is not None:
        cache = kv_cache_bytes(model, measured.context)
        floor = (weight_bytes + cache) / speed / 1e9
        section.data |= {
            "weight_bytes": weight_bytes,
            "cache_bytes": cache,
            "floor_ms": floor * 1e3,
        }
        section.tell(
            "a step reads",
            f"{size(weight_bytes)} of weights and {size(cache)} of cache"
            f" ({measured.context} tokens): at least {floor * 1e3:.1f} ms here,"
            f" {1 / floor:.0f} tokens/s",
        )
    section.tell("it takes", _taken(measured, floor))
    section.tell(
        "verifying",
        ", ".join(f"V({n}) = {v:.2f}" for n, v in measured.v.items())
        + " (a step over n tokens, in steps over one)",
    )
    return section, StepFacts(facts, costs.maskable, measured, floor)


def _tell_what_is_served(section: Section, session: TextSession) -> bool:
    """Whether drafts are verified, and how many tokens at once. Trying it may take steps."""
    try:
        most = session.most_verified
        verifies, trees = session.verifies_drafts, session.verifies_trees
    except EdgeConflayersError as error:
        section.data |= {"drafts": False, "trees": False, "exact_batch": 1}
        section.tell("drafts", f"no: {error}")
        return False
    if not session.model.forgets:
        verifies, why = False, "no: its memory cannot be taken back to an earlier token"
    else:
        why = f"no: {session.why_plain}" if not verifies else ""
    section.data |= {"drafts": verifies, "trees": verifies and trees, "exact_batch": most}
    if not verifies:
        section.tell("drafts", f"{why}; it decodes plainly")
        return False
    section.tell(
        "drafts",
        f"yes, {'trees' if trees else 'chains'}: a step over up to {most} tokens gives each the"
        " bits that it has alone",
    )
    return True


def _taken(measured: Measurement, floor: float | None) -> str:
    text = f"{measured.t1 * 1e3:.1f} ms, {1 / measured.t1:.0f} tokens/s without drafts"
    if floor is None:
        return text
    ratio = measured.t1 / floor
    return f"{text}: {ratio:.2f} times that floor"
