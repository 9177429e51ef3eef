"""The file that ``--json`` names."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_conflayers.cli import main
from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.errors import BadInput


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("before")
    with pytest.raises(TypeError, match="JSON serializable"):
        write_json(file, {"a": object()})
    assert file.read_text() == "before"
    write_json(file, {"a": 1, "b": [float("nan"), {"c": float("-inf")}]})
    assert json.loads(file.read_text()) == {"a": 1, "b": [None, {"c": None}]}
    assert list(tmp_path.iterdir()) == [file]
    usual = tmp_path / "usual"
    usual.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize("name", ["missing/out.json", "."])
def test_a_file_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    for write in (check_writable, lambda path: write_json(path, {})):
        with pytest.raises(BadInput, match="cannot be written"):
            write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("target")
    check_writable(link)
    write_json(link, {"a": 1})
    assert link.is_symlink() and json.loads((tmp_path / "target").read_text()) == {"a": 1}
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_json(pipe, {"a": 1})
    assert json.loads(os.read(reader, 1000)) == {"a": 1}
    os.close(reader)
    assert pipe.is_fifo()


def test_a_name_with_a_nul_or_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for path in (Path("a\0b"), tmp_path / "circle" / "x"):
        with pytest.raises(BadInput, match="cannot be written"):
            check_writable(path)


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    model, link, other = tmp_path / "model.gguf", tmp_path / "link", tmp_path / "other"
    model.write_bytes(b"GGUF")
    link.symlink_to(model)
    for path in (model, link):
        with pytest.raises(BadInput, match="it is what is read from"):
            check_writable(path, None, "a-registry-name", str(model))
    check_writable(other, None, model)
    other.touch()
    check_writable(other, None, model)
    check_writable(Path("/dev/null"), "/dev/null")


def test_every_command_asks_that_of_its_inputs(tmp_path: Path) -> None:
    model, prompts = tmp_path / "model.gguf", tmp_path / "prompts"
    model.write_bytes(b"GGUF")
    prompts.write_text("a prompt")
    for command in (
        ["run", model, "-p", "x", "--stats-json", model],
        ["run", model, "-f", prompts, "--stats-json", prompts],
        ["run", model, "-p", "x", "--grammar-file", prompts, "--stats-json", prompts],
        ["bench", model, "--prompts", prompts, "--json", prompts],
        ["bench", model, "--prompts", prompts, "--json", model],
        ["cost", model, "--json", model],
    ):
        done = CliRunner().invoke(main, [str(part) for part in command])
        assert "it is what is read from" in str(done.output) + str(done.exception), command
    assert model.read_bytes() == b"GGUF" and prompts.read_text() == "a prompt"
