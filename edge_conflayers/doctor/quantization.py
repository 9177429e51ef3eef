"""Whether the file's quantization suits this machine, and what another one would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_conflayers.doctor.model_file import OURS, SMALL, UPSTREAM, TypeUse
from edge_conflayers.doctor.section import Section
from edge_conflayers.engine.ggml import TensorType, tensor_types

_FULL = 0.99  # share of the bytes read that counts as all of them; not tuned
_Q4_K_M_BITS = 4.89  # of a weight of Llama-3.1-8B, by the README of llama.cpp's quantize
_MANY_BITS = 6.0  # of a weight, from which a smaller file is worth naming; not tuned
_MANY_BITS_WITHOUT_K = 8.0  # where Q4_K_M falls back to Q5_0 and Q8_0 for rows that are not of 256
_K_BLOCK = 256  # weights of a K-quant's block


@dataclass(frozen=True)
class Verdict:
    """Whether a quantization suits.

    Attributes:
        suits: our kernels serve it.
        advice: what to use instead; empty if nothing else is much faster.
    """

    suits: bool
    advice: str = ""


def examine_quantization(
    uses: Sequence[TypeUse],
    formats: Mapping[str, str],
    gb_per_s: float | None,
) -> tuple[Section, Verdict]:
    """The verdict on a file's types.

    Args:
        uses: of its tensors.
        formats: what serves each format of matrices, as ``binding.kernels`` says.
        gb_per_s: at which memory is read; None if that is not known.
    """
    section = Section("quantization")
    read = sum(use.bytes_read for use in uses if use.kernel != SMALL)
    ours = sum(use.bytes_read for use in uses if use.kernel == OURS) / read if read else 0.0
    verdict = _verdict(uses, formats, ours)
    section.data = {"ours": ours, "suits": verdict.suits, "advice": verdict.advice}
    section.tell("our kernels", f"serve {ours:.0%} of the matrices that a step reads")
    answer = "yes" if verdict.suits else "no"
    section.tell("suits", f"{answer}: {verdict.advice}" if verdict.advice else answer)
    others = floors(uses, formats, gb_per_s)
    if others:
        section.data["floors_ms"] = others
        section.tell(
            "floors",
            "if all matrices were "
            + ", ".join(f"{name} {ms:.1f} ms" for name, ms in others.items()),
        )
    return section, verdict


def floors(
    uses: Sequence[TypeUse], formats: Mapping[str, str], gb_per_s: float | None
) -> dict[str, float]:
    """Milliseconds of reading a step's weights if all matrices were in one format, for those that
    our kernels serve; smallest first. Empty where there are none, or memory was not measured."""
    if gb_per_s is None:
        return {}
    values = sum(use.values_read for use in uses)
    others = sum(use.bytes_read - use.values_read * use.type.bits / 8 for use in uses)
    k_rows = all(use.k_rows for use in uses)
    served = [
        each
        for each in tensor_types().values()
        if _serves(formats, each) and (k_rows or each.block < _K_BLOCK)
    ]
    return {
        each.name: (values * each.bits / 8 + others) / gb_per_s / 1e6
        for each in sorted(served, key=lambda each: each.bits)
    }


def _serves(formats: Mapping[str, str], tensor_type: TensorType) -> bool:
    return formats.get(tensor_type.name, "upstream") != "upstream"


def _verdict(uses: Sequence[TypeUse], formats: Mapping[str, str], ours: float) -> Verdict:
    if not any(kernel != "upstream" for kernel in formats.values()):
        return Verdict(
            False,
            "no kernel of ours is in use (--kernels upstream, or a CPU that they do not serve), so"
            " that checking a draft costs as much as writing it",
        )
    values = sum(use.values_read for use in uses)
    bits = sum(use.values_read * use.type.bits for use in uses) / values if values else 0.0
    if ours < _FULL:
        left = ", ".join(use.type.name for use in uses if use.kernel == UPSTREAM)
        return Verdict(
            False,
            f"{left} goes through upstream's kernels token by token, so that a draft saves little"
            " there; a Q4_K_M, Q5_K_M, Q6_K or Q8_0 file of the model would be served",
        )
    if bits > (_MANY_BITS if all(use.k_rows for use in uses) else _MANY_BITS_WITHOUT_K):
        return Verdict(
            True,
            f"it has {bits:.1f} bits a weight; a Q4_K_M file would read up to"
            f" {bits / _Q4_K_M_BITS:.1f} times less, at some loss of quality",
        )
    return Verdict(True)
