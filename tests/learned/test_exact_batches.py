"""How many tokens a step may take is tried once on a machine, and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from steps import Tiny

from edge_conflayers.engine.session import Session, exact_batch
from edge_conflayers.learned.exact_batches import RememberedBatches, remember_in
from edge_conflayers.profiles import ProfileStore


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = exact_batch.remembered
    exact_batch.remembered = {}
    yield
    exact_batch.remembered = before


def tries(tiny: Tiny) -> bool:
    """Whether a new session tries it, as if in a new process."""
    with Session(tiny("llama"), n_ctx=64, threads=1) as session:
        assert session.exact_batch == exact_batch.ON_CPU
        return session.graph_stats().built > 0


def test_it_is_tried_once(tiny: Tiny, store: ProfileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tries(tiny)  # nothing is remembered beyond the process
    exact_batch.remembered = {}
    for expected in (True, False, False):
        remember_in(store)
        assert tries(tiny) is expected
        exact_batch.remembered = {}
    monkeypatch.setattr("edge_conflayers.learned.exact_batches.library_build", lambda: "another")
    remember_in(store)
    assert tries(tiny)


def test_a_damaged_file_is_put_aside(
    tiny: Tiny, store: ProfileStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "machine.exact-batches").write_text('{"a": "b"}')
    remember_in(store)
    with caplog.at_level(logging.WARNING):
        assert tries(tiny)
    assert len(caplog.records) == 1 and "put aside" in caplog.text
    exact_batch.remembered = RememberedBatches(store, {})
    assert not tries(tiny)
