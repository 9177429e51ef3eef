"""Pulling from an address, where a server says more or less of a file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fake_hub import FakeHub

from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models, wanted

CONTENT = b"GGUF" + random.Random(0).randbytes(300_000)


def pull(hub: FakeHub, name: str = "files/a.gguf") -> Path:
    return models.pull(f"{hub.cdn}/{name}")


def test_a_file_is_pulled_once(hub: FakeHub) -> None:
    hub.files["files/a.gguf"] = CONTENT
    path = pull(hub)
    assert path.name == "a.gguf" and path.read_bytes() == CONTENT
    hub.asked.clear()
    assert pull(hub) == path and hub.asked == []
    assert [model.name for model in wanted.pulled_elsewhere()] == [f"{hub.cdn}/files/a.gguf"]
    assert models.remove(f"{hub.cdn}/files/a.gguf") is True
    assert wanted.pulled_elsewhere() == []


@pytest.mark.parametrize("tell_hash", [True, False])
def test_a_broken_connection_is_gone_on_with(hub: FakeHub, tell_hash: bool) -> None:
    hub.files["files/a.gguf"] = CONTENT
    hub.tell_hash, hub.breaks, hub.broken_after = tell_hash, 2, 70_000
    assert pull(hub).read_bytes() == CONTENT
    assert hub.gets() == [None, "bytes=70000-", "bytes=140000-"]


@pytest.mark.parametrize("tell_hash", [True, False])
def test_given_up_and_gone_on_with_later(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tell_hash: bool
) -> None:
    hub.files["files/a.gguf"] = CONTENT
    hub.tell_hash, hub.breaks, hub.broken_after = tell_hash, 2, 70_000
    with monkeypatch.context() as patch:
        patch.setattr("edge_conflayers.hub.url._TRIES", 0)
        with pytest.raises(EdgeConflayersError, match="try again later, what is there is kept"):
            pull(hub)
    hub.breaks = 0
    hub.asked.clear()
    assert pull(hub).read_bytes() == CONTENT
    assert hub.gets() == ["bytes=70000-"]


def test_a_file_that_changed_is_begun_again(hub: FakeHub) -> None:
    hub.files["files/a.gguf"] = CONTENT
    hub.tell_hash, hub.breaks, hub.broken_after = False, 1, 70_000
    other = b"GGUF" + CONTENT[::-1]
    send = hub.gets

    class Changing(dict[str, bytes]):
        def __getitem__(self, key: str) -> bytes:
            return CONTENT if len(send()) < 2 else other

    hub.files = Changing(hub.files)
    assert pull(hub).read_bytes() == other


def test_servers_without_ranges(hub: FakeHub) -> None:
    hub.files["files/a.gguf"] = CONTENT
    hub.ranges, hub.breaks, hub.broken_after = False, 1, 70_000
    assert pull(hub).read_bytes() == CONTENT


def test_all_parts_of_a_split_model(hub: FakeHub) -> None:
    for i in (1, 2):
        hub.files[f"files/a-{i:05d}-of-00002.gguf"] = CONTENT[: 1000 * i]
    path = pull(hub, "files/a-00001-of-00002.gguf")
    assert path.with_name("a-00002-of-00002.gguf").read_bytes() == CONTENT[:2000]
    with pytest.raises(BadInput, match="not the first part"):
        pull(hub, "files/a-00002-of-00002.gguf")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("files/none.gguf", r"HTTP 404 .*: there is no such file; check the address"),
        ("files/page.gguf", "not a GGUF file; check the address"),
    ],
)
def test_what_cannot_be_had_is_one_line(hub: FakeHub, name: str, says: str) -> None:
    hub.files["files/page.gguf"] = b"<html>"
    hub.tell_hash = False
    with pytest.raises(EdgeConflayersError, match=says) as error:
        pull(hub, name)
    assert "\n" not in str(error.value)
    assert not list(models.cache_folder().rglob("*.gguf*"))


def test_a_damaged_transfer_is_refused(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["files/a.gguf"] = CONTENT
    monkeypatch.setattr("fake_hub.sha256", lambda content: "0" * 64)
    with pytest.raises(EdgeConflayersError, match=r"another file .*wanted 300004 bytes with"):
        pull(hub)
    assert not list(models.cache_folder().rglob("*.gguf*"))
