"""``doctor``, run in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from installed import PACKAGE

from edge_conflayers.cli import main
from edge_conflayers.doctor import examine as examination
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.hub import models as store
from edge_conflayers.machine.memory_speed import MemoryReading


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Reads memory once, and keeps nothing in the user's folder."""
    monkeypatch.setattr(MemoryReading, "read_for", lambda self, seconds: self.read())
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def test_without_a_model(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = doctor("--json", out, "-t", 1)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert list(found) == ["date", "library", "machine", "advice", "broken"]
    assert found["library"]["patched"] is True and found["broken"] is False
    assert found["library"]["devices"][0]["kind"] == "CPU"
    assert found["machine"]["threads"] == 1
    speed = found["machine"]["memory_gb_per_s"]
    assert speed is None or speed > 0
    assert "llama-cpp-python" in done.stdout and "what to do" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines() if "/" not in line)


def test_a_model_that_all_is_served_of(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    path, out = tiny_path("llama", n_layer=6, quant="q8_0"), tmp_path / "out.json"
    done = doctor(path, "--json", out, "-t", 1)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    sections = ["library", "machine", "model", "steps", "memory", "quantization", "learned"]
    assert list(found) == ["date", *sections, "advice", "broken"]
    assert found["model"]["architecture"] == "llama"
    steps = found["steps"]
    assert steps["layer_mask"] is True and steps["drafts"] is True and steps["exact_batch"] > 1
    assert steps["t1_ms"] > 0 and set(steps["v"]) == {"2", "4", "8", "16"}
    types = {each["type"]: each for each in found["model"]["types"]}
    kernels = found["library"]["kernels"]["formats"]
    ours = kernels["Q8_0"] != "upstream"
    assert types["Q8_0"]["kernel"] == ("ours" if ours else "upstream's")
    assert found["quantization"]["suits"] is ours
    assert sum(each["bytes"] for each in types.values()) == found["memory"]["weight_bytes"]
    read = sum(each["bytes_read"] for each in types.values())
    if "floor_ms" in steps:
        assert steps["weight_bytes"] == read
        speed = found["machine"]["memory_gb_per_s"]
        floor = (read + steps["cache_bytes"]) / speed / 1e6
        assert steps["floor_ms"] == pytest.approx(floor, rel=0.5)
    assert found["learned"]["head"] is False
    for section in sections:
        assert f"\n{section}\n" in "\n" + done.stdout


def test_a_model_that_cannot_take_steps_back_decodes_plainly(
    tiny_path: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = doctor(tiny_path("mamba"), "--json", out, "-t", 1)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["steps"]["drafts"] is False
    assert "cannot be taken back" in " ".join(done.stdout.split())


def test_damaged_files_are_a_line_and_exit_1(
    tiny_path: Callable[..., Path], tmp_path: Path
) -> None:
    whole = tiny_path("llama").read_bytes()
    cases = {
        "cut.gguf": (whole[:900], "damaged in its header"),
        "text.gguf": (b"no model", "not a GGUF file"),
        "half.gguf": (whole[: len(whole) * 3 // 4], "cannot be loaded"),
    }
    for name, (content, what) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        done = doctor(path, "--json", tmp_path / "out.json", "-t", 1)
        assert done.exit_code == 1, done.output
        text = " ".join(done.stdout.split())
        assert "BROKEN" in text and what in text, text
        assert "Traceback" not in done.output
        found = json.loads((tmp_path / "out.json").read_text())
        assert found["broken"] is True and what in found["model"]["problems"][0]
    absent = doctor(tmp_path / "absent.gguf")
    assert absent.exit_code == 1 and "BROKEN" in absent.stdout


def test_an_unknown_architecture_is_a_line(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "strange.gguf"
    path.write_bytes(tiny_path("llama").read_bytes().replace(b"llama", b"lxama"))
    done = doctor(path, "-t", 1)
    assert done.exit_code == 1 and "unknown model architecture" in " ".join(done.stdout.split())


def test_a_missing_library_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise EdgeConflayersError("the library does not load")

    monkeypatch.setattr("edge_conflayers.doctor.library.examine_library", missing)
    monkeypatch.delenv("EDGE_CONFLAYERS_LIB", raising=False)
    done = doctor("absent.gguf")
    assert done.exit_code == 1
    assert "the library does not load: install it with `pip install .`" in done.stdout
    assert "absent.gguf" not in done.stdout  # nothing can be said of a model


def test_a_library_that_does_not_load_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_conflayers", "doctor", "model.gguf", "-t", "1"],
        env={**os.environ, "EDGE_CONFLAYERS_LIB": str(tmp_path)},
        cwd=PACKAGE,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    text = " ".join(done.stdout.split())
    assert (
        f"the library in {tmp_path} does not load" in text and "unset EDGE_CONFLAYERS_LIB" in text
    )


def test_a_fault_while_measuring_keeps_what_was_found(
    tiny_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("edge_conflayers.doctor.steps.examine_steps", no_memory)
    report = examination.examine("m", lambda name: tiny_path("llama"), threads=1)
    assert [section.name for section in report.sections][-2:] == ["model", "after model"]
    assert report.problems == ["out of memory: close programs, or use a smaller model"]


@pytest.mark.model
def test_a_real_model(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = doctor(store.resolve("smollm2-135m"), "--json", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["steps"]["weight_bytes"] == pytest.approx(96.6e6, rel=0.01)
    assert found["quantization"]["ours"] > 0.99 or not found["library"]["kernels"]["enabled"]
    assert found["steps"]["layer_mask"] is True


def test_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0, done.output
    for line in done.stdout.splitlines():
        assert len(line) <= 24 or len(line.split()) == 1, line
