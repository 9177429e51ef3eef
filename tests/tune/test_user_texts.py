"""The user's own texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_conflayers.errors import BadInput
from edge_conflayers.tune import user_texts
from edge_conflayers.tune.user_texts import read_user_texts


def test_a_folders_texts_are_read_in_order(tmp_path: Path) -> None:
    for name, data in {
        "b.txt": b"second \xc3\xa9\n",
        "a/deep/code.py": b"first = 1\n",
        "c.bin": b"\0\1\2",
        "d.latin1": b"caf\xe9",
        ".hidden": b"no",
        ".git/config": b"no",
        "empty.txt": b"",
        "spaces.txt": b" \n ",
        "marked.txt": b"\xef\xbb\xbfthird",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "fifo").mkdir()
    assert read_user_texts(tmp_path) == ["second \u00e9", "third", "first = 1"]


def test_large_files_and_more_than_enough_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_texts, "MOST_BYTES", 25)
    monkeypatch.setattr(user_texts, "_MOST_OF_FILE", 12)
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text("0123456789")
    (tmp_path / "00.txt").write_text("0123456789" * 2)
    assert read_user_texts(tmp_path) == ["0123456789"] * 2


def test_a_file_is_read_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("Notes.\n")
    assert read_user_texts(file) == ["Notes."]


@pytest.mark.parametrize("data", [b"", b"\0binary", b"caf\xe9"])
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "data"
    file.write_bytes(data)
    with pytest.raises(BadInput, match="is no UTF-8 text"):
        read_user_texts(file)
    with pytest.raises(BadInput, match="there is no text under"):
        read_user_texts(tmp_path)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot be read \(No such file"):
        read_user_texts(tmp_path / "none")
