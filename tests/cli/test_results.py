"""Results for programs (``--json``), and what becomes of them where they cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model
from installed import PACKAGE

from edge_conflayers.cli import main
from edge_conflayers.cli.json_file import show_result
from edge_conflayers.errors import BadInput, EdgeConflayersError

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")

COMMANDS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "cost": (("cost", "{model}", "--repeat", "1"), {"t1_ms", "v", "c", "kernels"}),
    "bench": (
        ("bench", "{model}", "--prompts", "{prompts}", "-n", "4", "--methods", "plain"),
        {"methods", "prompts", "complete"},
    ),
    "doctor": (("doctor", "{model}"), {"library", "machine", "steps", "advice"}),
    "tune": (
        ("tune", "{model}", "--prompts", "{prompts}", "--budget", "1", "-n", "32"),
        {"skip_sets", "next_state_head", "bridge", "interrupted", "model", "threads"},
    ),
    "export": (("export", "{model}", "{out}"), {"folder", "bytes", "target", "precision"}),
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    return write_tiny_model(tmp_path / "tiny.gguf", "llama", n_layer=4, layer_gain=0.1)


def call(name: str, model: Path, *options: object) -> Result:
    if name == "export":
        pytest.importorskip("onnx")
    prompts = model.with_name("prompts")
    prompts.write_text("Name three fruits and say a word about each of them.\n")
    places = {"model": model, "prompts": prompts, "out": model.with_name("out")}
    given = [each.format(**places) for each in COMMANDS[name][0]]
    threads = () if name == "export" else ("-t", 1)
    return CliRunner().invoke(main, [*given, *map(str, (*threads, *options))])


@pytest.mark.parametrize("name", COMMANDS)
def test_json_alone_on_standard_output(tiny: Path, name: str) -> None:
    done = call(name, tiny, "--json", "-")
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)) > COMMANDS[name][1] - {"kernels"}
    assert not Path("-").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_json_beside_the_table(tiny: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.json"
    done = call(name, tiny, "--json", out)
    assert done.exit_code == 0 and done.stdout.strip(), done.output
    content: dict[str, Any] = json.loads(out.read_text())
    assert COMMANDS[name][1] <= set(content)


@needs_full
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_loses_nobody_the_result(tiny: Path, name: str) -> None:
    done = call(name, tiny, "--json", FULL)
    assert done.exit_code == 1 and done.stdout.strip()
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "/dev/full cannot be written (No space left on device); free some room there"
    )


@needs_full
def test_statistics_on_a_full_disk(tiny: Path) -> None:
    given = ("run", tiny, "-p", "the", "-n", 4, "-t", 1, "-q")
    text = CliRunner().invoke(main, list(map(str, given))).stdout
    done = CliRunner().invoke(main, list(map(str, (*given, "--stats-json", FULL))))
    assert (done.exit_code, done.stdout) == (1, text) and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_files_of_a_limited_size(tiny: Path, tmp_path: Path) -> None:
    import resource

    out = tmp_path / "cost.json"
    done = subprocess.run(
        [sys.executable, "-m", "edge_conflayers", "cost", tiny, "-t", "1", "--json", out],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert done.returncode == 1 and done.stdout.startswith("step")
    (line,) = done.stderr.splitlines()
    assert "File too large" in line and not out.exists()


@needs_full
def test_a_page_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from edge_conflayers.bench.page import write

    def full(*_: Any, **__: Any) -> Any:
        FULL.write_text("x")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(EdgeConflayersError, match="free some room there") as error:
        write.make_folder(tmp_path / "page")
    assert error.value.exit_code == 1


def test_a_result_is_shown_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    shown: list[int] = []
    with pytest.raises(BadInput):
        show_result(tmp_path / "no" / "file", dict, lambda: shown.append(1))
    show_result(None, lambda: pytest.fail("nobody asked"), lambda: shown.append(2))
    show_result(tmp_path / "file", lambda: {"a": 1}, lambda: shown.append(3))
    assert shown == [1, 2, 3]


@pytest.mark.skipif(os.name != "posix", reason="bash")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_has_enough(tiny: Path, tmp_path: Path, name: str) -> None:
    if name == "export":
        pytest.importorskip("onnx")
    (tmp_path / "prompts").write_text("Name three fruits and say a word about each of them.\n")
    places = {"model": tiny, "prompts": tmp_path / "prompts", "out": tmp_path / "out"}
    words = " ".join(each.format(**places) for each in COMMANDS[name][0])
    command = f"{sys.executable} -m edge_conflayers {words} -q --json -"
    script = f"{command} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=PACKAGE, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.name != "posix", reason="has no home")
def test_no_home(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOME", "EDGE_CONFLAYERS_DATA", "EDGE_CONFLAYERS_CACHE", "XDG_CACHE_HOME")
    }
    for words, code in (("models list", 0), ("--help", 0), ("completion bash", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "edge_conflayers", *words.split()],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_a_cache_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pulled is used, and what is not is refused in a line."""
    from edge_conflayers.hub.registry import registry

    name, info = next(iter(registry().items()))
    cache = tmp_path / "cache"
    file = cache / "models" / f"{name}.gguf"
    file.parent.mkdir(parents=True)
    with file.open("wb") as sparse:
        sparse.truncate(info.size)
    monkeypatch.setenv("EDGE_CONFLAYERS_CACHE", str(cache))
    touch = Path.touch

    def read_only(self: Path, *given: Any, **named: Any) -> None:
        if cache in self.parents:
            raise PermissionError(13, "Permission denied")
        touch(self, *given, **named)

    monkeypatch.setattr(Path, "touch", read_only)
    assert CliRunner().invoke(main, ["models", "path", name]).stdout == f"{file}\n"
    other = list(registry())[1]
    done = CliRunner().invoke(main, ["run", other, "-p", "the"])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "cannot write to the model cache" in done.stderr
