"""What docs/several-machines.md says can move between machines can, and what is not used is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from steps import Tiny, TinyPath

from edge_conflayers.engine.model import Model
from edge_conflayers.learned import Learned
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import ProfileStore


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the code believe that it runs on another CPU."""
    monkeypatch.setattr("edge_conflayers.profiles.cpu_name", lambda: "another CPU")


def a_head(model: Model) -> NextStateHead:
    weights = np.random.default_rng(1).normal(size=(2 * model.n_embd, 3 * model.n_embd))
    return NextStateHead(weights.astype(np.float32))


def test_measured_state_is_for_one_machine(
    tiny: Tiny, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, store = tiny("llama", n_layer=6, layer_gain=0.2), ProfileStore(tmp_path)
    here = Learned(model, 1, store)
    sets = here.skip_sets()
    sets.savings = {2048: 0.001}
    here.keep_skip_sets(sets)
    assert Learned(model, 1, store).skip_sets().savings == {2048: 0.001}
    assert Learned(model, 2, store).skip_sets().savings is None
    request.getfixturevalue("other_machine")
    assert Learned(model, 1, store).skip_sets().savings is None


def test_a_head_moves_with_its_model(
    tiny_path: TinyPath, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tiny_path("llama", n_layer=6, layer_gain=0.2)
    here, there = tmp_path / "here", tmp_path / "there"
    with Model(path) as model:
        Learned(model, 1, ProfileStore(here)).save_head(a_head(model))
        there.mkdir()
        for file in here.glob("*.next-state"):
            shutil.copy(file, there)
    renamed = shutil.copy(path, tmp_path / "renamed.gguf")
    request.getfixturevalue("other_machine")
    with Model(renamed) as model:
        head = Learned(model, 2, ProfileStore(there)).load_head()
        assert head is not None
        assert head.to_bytes() == a_head(model).to_bytes()
    with Model(tiny_path("llama", n_layer=6, layer_gain=0.3)) as another:
        assert Learned(another, 1, ProfileStore(there)).load_head() is None
