"""What to do next, by what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_conflayers.doctor.quantization import Verdict
from edge_conflayers.doctor.steps import StepFacts
from edge_conflayers.drafters.next_state import PAYS_FROM, head_pays

_FAR = 1.6  # a step that takes so many times its floor is not bound by memory alone; not tuned

# What /proc/cpuinfo and llama.cpp call the same instructions.
_COMPILED = {
    "avx2": "AVX2",
    "avx_vnni": "AVX_VNNI",
    "avx512_vnni": "AVX512_VNNI",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
}


def about_build(
    features: Sequence[str],
    compiled: Sequence[str],
    devices: Sequence[Mapping[str, Any]],
    *,
    layers: int,
) -> list[str]:
    """What to do about the library.

    Args:
        features: of the CPU, as the system names them.
        compiled: what llama.cpp was compiled for.
        devices: that it computes on, as ``Device`` has them.
        layers: that were asked to be on a GPU.
    """
    advice = []
    unused = [name for name in features if _COMPILED.get(name, name) not in compiled]
    unused = [name for name in unused if name in _COMPILED]
    if compiled and unused:
        advice.append(
            f"the library was compiled without {', '.join(unused)}, which this CPU has: build it"
            " here (`pip install .`) to read prompts faster"
        )
    gpus = [each["name"] for each in devices if "GPU" in each["kind"]]
    if gpus and not layers:
        advice.append(f"{gpus[0]} is there: compare -ngl -1 with the CPU (`bench`)")
    return advice


def about_model(
    name: str, facts: StepFacts, verdict: Verdict | None, known: Mapping[str, Any]
) -> list[str]:
    """What to do about a model.

    Args:
        name: as the user gave it.
        facts: of its steps.
        verdict: on its quantization, if it has one.
        known: what is learned, as ``examine_known`` tells it.
    """
    advice = []
    if verdict is not None and verdict.advice:
        advice.append(f"quantization: {verdict.advice}")
    measured = facts.measured
    if measured is not None and facts.floor is not None and measured.t1 > _FAR * facts.floor:
        advice.append(
            f"a step takes {measured.t1 / facts.floor:.1f} times its floor: other programs, too few"
            " threads (-t) or computing bound it, not memory alone; close programs or leave them a"
            " core (-t), and run `doctor` again"
        )
    if measured is None or not facts.verifies_drafts:
        return advice
    if not head_pays(measured.t1):
        if not known["costs"]:
            advice.append(
                f"`edge-conflayers tune {name}` measures steps and searches skip sets; a token"
                f" takes {measured.t1 * 1e3:.1f} ms here, too little for a next-state head to pay"
                f" (from {PAYS_FROM * 1e3:.0f} ms)"
            )
    elif not known["head"]:
        advice.append(
            f"`edge-conflayers tune {name}` teaches a next-state head in five minutes, which makes"
            " most texts faster"
        )
    else:
        advice.append(
            f"`edge-conflayers tune {name} --prompts FILE` goes on teaching the head, best with"
            " prompts like yours"
        )
    advice.append(
        f"`edge-conflayers bench {name} --prompts FILE --report DIR` shows what it gains on your"
        " prompts"
    )
    return advice
