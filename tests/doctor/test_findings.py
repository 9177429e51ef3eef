"""What the doctor concludes, without a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_conflayers.costs.model import Measurement
from edge_conflayers.doctor.advice import about_build, about_model
from edge_conflayers.doctor.model_file import OURS, SMALL, UPSTREAM, type_uses
from edge_conflayers.doctor.quantization import Verdict, examine_quantization, floors
from edge_conflayers.doctor.section import size
from edge_conflayers.doctor.steps import StepFacts
from edge_conflayers.engine import binding, native
from edge_conflayers.engine.ggml import tensor_types
from edge_conflayers.engine.gguf_tensors import Tensor, read_tensors
from edge_conflayers.engine.model import Model

TYPES = {each.name: each for each in tensor_types().values()}
FORMATS = {"Q4_0": "avx2", "Q8_0": "avx2", "Q4_K": "avx2", "Q6_K": "avx2", "F16": "avx2"}
NO_KERNELS = dict.fromkeys(FORMATS, "upstream")


def tensor(name: str, kind: str, *shape: int) -> Tensor:
    return Tensor(name, shape, TYPES[kind])


def model(matrices: str, head: str = "Q6_K", width: int = 512) -> list[Tensor]:
    return [
        tensor("token_embd.weight", "Q8_0", width, 1000),
        tensor("output.weight", head, width, 1000),
        tensor("output_norm.weight", "F32", width),
        *(tensor(f"blk.{i}.attn_q.weight", matrices, width, width) for i in range(2)),
        *(tensor(f"blk.{i}.ffn_up.weight", matrices, width, 4 * width) for i in range(2)),
    ]


def test_each_type_with_its_kernel_and_what_a_step_reads_of_it() -> None:
    uses = {use.type.name: use for use in type_uses(model("Q4_K"), FORMATS, 2)}
    assert [use.kernel for use in uses.values()].count(OURS) == 2
    assert uses["Q4_K"].kernel == uses["Q6_K"].kernel == OURS
    assert uses["Q4_K"].tensors == 4
    assert uses["Q4_K"].bytes_read == uses["Q4_K"].n_bytes == 2 * 5 * 512 * 512 * 144 // 256
    assert uses["Q4_K"].values_read == 2 * 5 * 512 * 512
    assert (uses["Q8_0"].kernel, uses["Q8_0"].bytes_read) == (SMALL, 0)  # looked up by row
    assert (uses["F32"].kernel, uses["F32"].bytes_read) == (SMALL, 4 * 512)


def test_what_our_kernels_do_not_take_is_upstreams() -> None:
    uses = {use.type.name: use for use in type_uses(model("IQ4_XS"), FORMATS, 2)}
    assert (uses["IQ4_XS"].kernel, uses["Q6_K"].kernel) == (UPSTREAM, OURS)
    assert all(use.kernel != OURS for use in type_uses(model("Q4_K"), NO_KERNELS, 2))
    experts = [*model("Q6_K"), tensor("blk.0.ffn_up_exps.weight", "Q4_0", 512, 512, 8)]
    uses = {use.type.name: use for use in type_uses(experts, FORMATS, 2, 0.25)}
    assert uses["Q4_0"].kernel == UPSTREAM  # three dimensions
    assert uses["Q4_0"].values_read == 512 * 512 * 2


def test_the_verdict_on_a_quantization() -> None:
    def verdict(*args: Any, formats: dict[str, str] = FORMATS, **named: Any) -> Verdict:
        return examine_quantization(type_uses(model(*args, **named), formats, 2), formats, 10.0)[1]

    assert verdict("Q4_K") == Verdict(True)
    iq = verdict("IQ4_XS")
    assert not iq.suits and iq.advice.startswith("IQ4_XS goes through upstream's kernels")
    wide = verdict("F16", "F16")
    assert wide.suits and "16.0 bits a weight" in wide.advice and "3.3 times less" in wide.advice
    assert "no kernel of ours" in verdict("Q4_K", formats=NO_KERNELS).advice
    # Rows of 320 hold no K-quants, so that Q4_K_M falls back to wider types: nothing to gain.
    assert verdict("Q5_0", "Q8_0", width=320, formats={**FORMATS, "Q5_0": "avx2"}).advice == ""
    assert verdict("F16", "F16", width=320).advice


def test_floors_by_format() -> None:
    uses = type_uses(model("F16", "F16"), FORMATS, 2)
    found = floors(uses, FORMATS, 10.0)
    assert list(found) == ["Q4_0", "Q4_K", "Q6_K", "Q8_0", "F16"]
    read = sum(use.bytes_read for use in uses)
    assert found["F16"] == pytest.approx(read / 10e9 * 1e3)
    assert found["F16"] / found["Q4_0"] == pytest.approx(16 / 4.5, rel=0.01)
    assert list(floors(type_uses(model("F16", "F16", 320), FORMATS, 2), FORMATS, 10.0)) == [
        "Q4_0",
        "Q8_0",
        "F16",
    ]
    assert floors(uses, NO_KERNELS, 10.0) == floors(uses, FORMATS, None) == {}


KNOWN = {"head": False, "costs": False}


def advice(t1: float, floor: float | None = None, known: dict[str, Any] = KNOWN) -> str:
    facts = StepFacts(True, True, Measurement(240, t1, 0.0, 0.0, {2: 1.1}), floor)
    return " ".join(about_model("m.gguf", facts, Verdict(True), known))


def test_what_to_do_about_a_model() -> None:
    assert "tune m.gguf` teaches" in advice(0.02)
    assert "--prompts FILE` goes on teaching" in advice(0.02, known={"head": True, "costs": True})
    assert "too little for a next-state head" in advice(0.003)
    assert "tune" not in advice(0.003, known={"head": False, "costs": True})
    assert "2.0 times its floor" in advice(0.02, 0.01)
    assert "its floor" not in advice(0.02, 0.018)
    assert "bench m.gguf" in advice(0.02)
    plain = StepFacts(False, False, Measurement(240, 0.02, 0.0, 0.0, {2: 1.1}))
    assert about_model("m", plain, Verdict(False, "another one"), KNOWN) == [
        "quantization: another one"
    ]


def test_what_to_do_about_the_library() -> None:
    gpu = [{"name": "CUDA0", "kind": "GPU"}]
    assert about_build(["avx2", "avx512_vnni"], ["AVX2", "AVX512_VNNI"], [], layers=0) == []
    (line,) = about_build(["avx2", "avx512_vnni", "fma"], ["AVX2"], [], layers=0)
    assert "without avx512_vnni, which" in line
    assert "CUDA0" in about_build([], [], gpu, layers=0)[0]
    assert about_build([], [], gpu, layers=-1) == []


@pytest.mark.parametrize(
    ("n", "text"), [(5_000, "5 kB"), (49e6, "49 MB"), (1.12e9, "1.1 GB"), (24.6e9, "25 GB")]
)
def test_sizes(n: float, text: str) -> None:
    assert size(n) == text


def test_the_library_keeps_in_its_own_layout_what_is_said_to_be_served(
    tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The library's log says how much it has repacked for our kernels."""
    path = tiny_path("llama", n_layer=4, quant="q8_0")
    native.log.show = True
    try:
        with Model(path, kernels="ecl") as loaded:
            n_layer = loaded.n_layer
    finally:
        native.log.show = False
    told = re.search(r"CPU_ECL model buffer size = +([\d.]+) MiB", capsys.readouterr().err)
    uses = type_uses(read_tensors(path), binding.kernels("ecl")["formats"], n_layer)
    ours = sum(use.bytes_read for use in uses if use.kernel == OURS)
    assert (ours > 0) == (told is not None)
    if told is not None:
        assert float(told[1]) * 2**20 == pytest.approx(ours, rel=0.1, abs=2e4)
