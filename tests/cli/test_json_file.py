"""The file that ``--json`` names."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edge_conflayers.cli.json_file import check_writable, write_json
from edge_conflayers.errors import BadInput


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("before")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, {"a": float("nan")})
    assert file.read_text() == "before"
    write_json(file, {"a": 1})
    assert json.loads(file.read_text()) == {"a": 1}
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
