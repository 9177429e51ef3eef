"""Conversations, and their transcripts on disk."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.chat.messages import read_messages
from edge_conflayers.conversation.conversation import Conversation
from edge_conflayers.conversation.transcript import Transcript, latest, read_transcript
from edge_conflayers.errors import BadInput


def on_disk(conversation: Conversation) -> list[object]:
    assert conversation.transcript is not None and conversation.transcript.path is not None
    return list(read_transcript(conversation.transcript.path))


def test_each_change_is_on_disk(tmp_path: Path) -> None:
    conversation = Conversation([], Transcript(tmp_path / "new" / "folder"))
    conversation.set_system("Be brief.")
    assert not (tmp_path / "new").exists()  # nothing was said
    for role, text in (
        ("user", "one\n two"),
        ("assistant", "Łódź \u2028 \x85 \ud800"),
        ("user", "three"),
    ):
        conversation.add(role, text)
        assert on_disk(conversation) == list(conversation.messages)
    assert conversation.is_unanswered and conversation.asked == ["one\n two", "three"]
    assert conversation.undo() == "three"
    assert on_disk(conversation) == list(conversation.messages) and not conversation.is_unanswered
    conversation.unanswer()
    assert [each["role"] for each in conversation.messages] == ["system", "user"]
    assert on_disk(conversation) == list(conversation.messages) and conversation.is_unanswered
    conversation.set_system(None)
    assert on_disk(conversation) == [{"role": "user", "content": "one\n two"}]
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert read_messages(file.read_text(), "it") == list(conversation.messages)


def test_what_there_is_not_to_take_back() -> None:
    conversation = Conversation([{"role": "system", "content": "a"}])
    with pytest.raises(BadInput, match="no message to take back"):
        conversation.undo()
    with pytest.raises(BadInput, match="no message to answer again"):
        conversation.unanswer()
    assert conversation.system == "a"


def test_undo_takes_back_tool_calls_as_well() -> None:
    roles = ("user", "assistant", "user", "assistant", "tool", "assistant")
    conversation = Conversation([{"role": role, "content": role} for role in roles])
    conversation.undo()
    assert [each["role"] for each in conversation.messages] == ["user", "assistant"]


@given(st.data())
def test_a_cut_transcript_holds_the_messages_before(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(), min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        transcript = Transcript(Path(folder))
        conversation = Conversation([], transcript)
        for each in texts:
            conversation.add("user", each)
        assert transcript.path is not None
        whole = transcript.path.read_bytes()
        cut = whole[: data.draw(st.integers(0, len(whole)))]
        transcript.path.write_bytes(cut)
        found = read_transcript(transcript.path)
    assert [each["content"] for each in found] == texts[: cut.count(b"\n")]


def test_the_latest_is_the_last_changed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no conversation"):
        latest(tmp_path / "none")
    first, second = (Conversation([], Transcript(tmp_path)) for _ in range(2))
    for each in (first, second):
        each.add("user", "hello")
        assert each.transcript is not None and each.transcript.path is not None
        os.utime(each.transcript.path, (1e9, 1e9))
    first.add("user", "hello")
    assert first.transcript is not None and latest(tmp_path) == first.transcript.path
    assert len(list(tmp_path.iterdir())) == 2


def test_going_on_leaves_the_conversation_before(tmp_path: Path) -> None:
    first = Conversation([], Transcript(tmp_path))
    first.add("user", "one")
    second = Conversation(first.messages, Transcript(tmp_path))
    second.add("assistant", "two")
    assert len(on_disk(first)) == 1 and len(on_disk(second)) == 2


def test_a_folder_that_cannot_be_written_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    conversation = Conversation([], Transcript(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            conversation.add("user", "hello")
        conversation.undo()
    assert len(conversation.messages) == 2
    (record,) = caplog.records
    assert "cannot be kept" in record.getMessage() and "\n" not in record.getMessage()
