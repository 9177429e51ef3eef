"""The export as a whole: what it refuses, what it tells, and what it leaves when it fails."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import onnx
import pytest
from gguf_models import write_tiny_model
from installed import PACKAGE
from steps import TinyPath

import edge_conflayers
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.onnx import extra, new_folder
from edge_conflayers.onnx.export import ExportProgress, Target, export

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "architecture": ("phi3", {}, "is a phi3 model, .* llama, qwen2, qwen3, gemma3"),
    "experts": ("qwen2moe", {}, "is a qwen2moe model"),
    "experts of llama": (
        *("llama", {"metadata": (("expert_count", 8), ("expert_used_count", 2))}),
        "llama.expert_count asks for a mixture of experts",
    ),
    "rope": (
        *("llama", {"metadata": (("rope.scaling.type", "longrope"),)}),
        "llama.rope.scaling.type is longrope",
    ),
    "value size": (
        *("gemma3", {"metadata": (("attention.value_length_swa", 8),)}),
        "gemma3.attention.value_length_swa is not 16",
    ),
    "head size": (
        *("llama", {"head_dim": 20}),
        "heads of 20 dimensions .* multiples of 16; export with `--target standard`",
    ),
    "unknown tensor": (
        *("qwen3", {"layer_biases": True}),
        "it has blk.0.attn_output.bias, which no qwen3 model",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path, case: str) -> None:
    arch, settings, says = REFUSED[case]
    model = write_tiny_model(tmp_path / "m.gguf", arch, **settings)
    with pytest.raises(BadInput, match=says) as error:
        export(model, tmp_path / "out", on_progress=pytest.fail)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def rewrite(model: Path, writer: gguf.GGUFWriter, replaced: dict[str, list[int]]) -> None:
    """Copies a model, but for some values, which become arrays."""
    reader = gguf.GGUFReader(model)
    for field in reader.fields.values():
        if field.name in replaced:
            writer.add_array(field.name, replaced[field.name])
        elif not field.name.startswith(("GGUF.", "general.architecture")):
            kinds = field.types
            writer.add_key_value(
                field.name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None
            )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_model_in_parts(tiny_path: TinyPath, tmp_path: Path) -> None:
    model = tiny_path("llama")
    rewrite(model, gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=15), {})
    parts = sorted(path.name for path in tmp_path.iterdir())
    assert parts == [f"m-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    export(model, tmp_path / "whole")
    export(tmp_path / parts[0], tmp_path / "parts")
    one, other = (tmp_path / name / "onnx" / "model.onnx_data" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()


def test_links_and_the_folder_one_is_in(
    tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "real")
    with pytest.raises(BadInput, match="the folder that you are in"):
        export(tiny_path("llama"), Path("."))
    monkeypatch.chdir(tmp_path)
    export(tiny_path("llama"), tmp_path / "link")
    assert (tmp_path / "real" / "onnx" / "model.onnx").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_layers_that_differ_are_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.gguf", "llama", n_layer=2)
    changed = tmp_path / "changed.gguf"
    writer = gguf.GGUFWriter(changed, "llama")
    rewrite(model, writer, {"llama.attention.head_count_kv": [2, 1]})
    with pytest.raises(BadInput, match=r"head_count_kv differs from layer to layer"):
        export(changed, tmp_path / "out")


def test_cut_off_and_damaged_files(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.gguf", "llama")
    data = model.read_bytes()
    for length in (len(data) - 100, len(data) // 2):
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        with pytest.raises(BadInput, match=r"cut off|damaged"):
            export(tmp_path / "cut.gguf", tmp_path / "out")
    at = data.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight")
    for offset, byte in ((0, 9), (4, 1), (20, 99), (20, 4)):
        wrong = bytearray(data)
        wrong[at + offset] = byte
        (tmp_path / "wrong.gguf").write_bytes(wrong)
        with pytest.raises(BadInput):
            export(tmp_path / "wrong.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_metadata_and_progress(tiny_path: TinyPath, tmp_path: Path) -> None:
    model, told = tiny_path("qwen3"), list[ExportProgress]()
    export(model, tmp_path / "out", target="standard", precision="fp32", on_progress=told.append)
    saved = onnx.load(tmp_path / "out" / "onnx" / "model.onnx", load_external_data=False)
    assert {each.key: each.value for each in saved.metadata_props} == {
        f"edge_conflayers.{key}": value
        for key, value in {
            "version": edge_conflayers.__version__,
            "source_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "target": "standard",
            "precision": "fp32",
            "architecture": "qwen3",
            "n_layer": "4",
            "n_embd": "64",
            "n_head": "4",
            "n_head_kv": "2",
            "head_dim": "16",
            "n_vocab": "320",
            "n_ctx_train": "4096",
        }.items()
    }
    weights = (tmp_path / "out" / "onnx" / "model.onnx_data").stat().st_size
    for stage, total in (("reading", model.stat().st_size), ("writing", weights)):
        done = [each.done for each in told if each.stage == stage]
        assert done[0] == 0 and done == sorted(set(done))
        assert done[-1] == {each.total for each in told if each.stage == stage}.pop()
        assert 0.98 * total < done[-1] <= total


def test_a_folder_that_holds_something_is_refused(tiny_path: TinyPath, tmp_path: Path) -> None:
    model, out = tiny_path("llama"), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("precious")
    with pytest.raises(BadInput, match="is not an empty folder"):
        export(model, out)
    assert (out / "mine").read_text() == "precious"
    (out / "mine").unlink()
    export(model, out)
    assert (out / "onnx" / "model.onnx").is_file()
    with pytest.raises(BadInput, match="is not an empty folder"):
        export(model, out / "onnx" / "model.onnx")


def test_an_interrupt_leaves_nothing(tiny_path: TinyPath, tmp_path: Path) -> None:
    def interrupt(progress: ExportProgress) -> None:
        if progress.stage == "writing" and progress.done > progress.total // 2:
            assert any(tmp_path.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tiny_path("llama"), tmp_path / "deep" / "out", on_progress=interrupt)
    assert not any((tmp_path / "deep").iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from edge_conflayers.onnx.export import export
def kill(progress):
    if progress.stage == "writing" and progress.done > progress.total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
export(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=kill)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_killed_export_has_no_name_and_the_next_one_tidies_up(
    tiny_path: TinyPath, tmp_path: Path
) -> None:
    model, out = tiny_path("llama"), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, model, out], cwd=PACKAGE, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".out.part"]
    export(model, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_two_exports_to_one_folder(tiny_path: TinyPath, tmp_path: Path) -> None:
    model, out = tiny_path("llama"), tmp_path / "out"
    tried = []

    def other(progress: ExportProgress) -> None:
        with pytest.raises(BadInput, match="is being written by another process"):
            export(model, out)
        tried.append(progress)

    export(model, out, on_progress=other)
    assert tried and (out / "onnx" / "model.onnx").is_file()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_said_before_writing(
    tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_folder.shutil, "disk_usage", lambda _: Usage(1, 1, 1_000_000))
    stages: list[str] = []
    with pytest.raises(EdgeConflayersError, match=r"no room: .* wanted, 1 MB are free") as error:
        export(tiny_path("llama"), tmp_path / "out", on_progress=lambda p: stages.append(p.stage))
    assert error.value.exit_code == 1 and "writing" not in stages
    assert not any(tmp_path.iterdir())


def command(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own.

    Args:
        limit: bytes that a file may have, as if the disk were full then.
    """

    def limited() -> None:
        import resource

        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "edge_conflayers", *map(str, arguments)],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limited if limit is not None else None,
    )


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_is_one_line(tiny_path: TinyPath, tmp_path: Path) -> None:
    done = command("export", tiny_path("llama"), tmp_path / "out", limit=100_000)
    assert done.returncode == 1 and done.stdout == ""
    (*_, last) = done.stderr.splitlines()
    assert last.startswith("edge-conflayers: no room for") and "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_the_command(tiny_path: TinyPath, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("export", tiny_path("llama"), out, "--target", "standard")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}  ")
    assert done.stderr == ""
    again = command("export", tiny_path("llama"), out)
    assert again.returncode == 2 and "is not an empty folder" in again.stderr
    assert command("export", tmp_path / "none.gguf", tmp_path / "x").returncode == 2


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    extra.check_extra()
    monkeypatch.setattr(extra, "_PACKAGES", ("numpy", "no_such_package"))
    with pytest.raises(BadInput, match=r"no_such_package; run `pip install 'edge-conflayers\[onnx"):
        extra.check_extra()


PEAK = """
import sys
from pathlib import Path
from edge_conflayers.onnx.export import export
export(Path(sys.argv[1]), Path(sys.argv[2]), target=sys.argv[3], precision=sys.argv[4])
(line,) = (l for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(line.split()[1])
"""


def _sparse_model(path: Path, n_layer: int, kind: gguf.GGMLQuantizationType) -> int:
    """Writes a model of zeros that take no room on the disk. Returns bytes of its largest tensor.

    Its layers together are several times as large.
    """
    n_embd, n_ff, n_vocab = 1024, 4096, 16384
    tiny = write_tiny_model(path.with_name("tiny.gguf"), "llama", n_layer=1, n_vocab=n_vocab)
    writer = gguf.GGUFWriter(path, "llama")
    for field in gguf.GGUFReader(tiny).fields.values():
        if field.name.startswith("tokenizer."):
            types = field.types
            writer.add_key_value(
                field.name, field.contents(), types[0], types[-1] if len(types) > 1 else None
            )
    writer.add_block_count(n_layer)
    writer.add_context_length(512)
    writer.add_embedding_length(n_embd)
    writer.add_head_count(8)
    writer.add_head_count_kv(8)
    writer.add_feed_forward_length(n_ff)
    writer.add_layer_norm_rms_eps(1e-6)
    sizes: list[int] = []

    def add(name: str, *shape: int, kind: gguf.GGMLQuantizationType = kind) -> None:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        sizes.append(int(np.prod(shape)) // block * size)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), sizes[-1], raw_dtype=kind)

    flat = gguf.GGMLQuantizationType.F32
    add("token_embd.weight", n_vocab, n_embd)
    add("output_norm.weight", n_embd, kind=flat)
    for layer in range(n_layer):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", n_embd, n_embd)
        for part in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{part}.weight", n_embd, kind=flat)
        for part, shape in (
            *(("ffn_gate", (n_ff, n_embd)), ("ffn_up", (n_ff, n_embd))),
            ("ffn_down", (n_embd, n_ff)),
        ):
            add(f"blk.{layer}.{part}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    padded = sum(-(-size // 32) * 32 for size in sizes)
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + padded)
    return max(sizes)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("target", "precision", "kind"),
    [
        ("ort", "keep", gguf.GGMLQuantizationType.Q4_K),
        ("standard", "keep", gguf.GGMLQuantizationType.Q6_K),
        ("ort", "fp32", gguf.GGMLQuantizationType.F16),
        ("standard", "fp32", gguf.GGMLQuantizationType.F16),
        ("standard", "fp16", gguf.GGMLQuantizationType.F32),
    ],
)
def test_memory_does_not_grow_with_the_model(
    tmp_path: Path, target: Target, precision: str, kind: gguf.GGMLQuantizationType
) -> None:
    peaks: Sequence[int] = []
    for n_layer in (1, 7):
        model, out = tmp_path / f"{n_layer}.gguf", tmp_path / f"out{n_layer}"
        largest = _sparse_model(model, n_layer, kind)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, model, out, target, precision],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        peaks = [*peaks, int(done.stdout) * 1024]
        written = (out / "onnx" / "model.onnx_data").stat().st_size
        assert peaks[-1] < 3 * largest + 1e9
    few, many = peaks
    assert many < few + 10e6 and written > few
