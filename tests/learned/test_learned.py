"""What was learned about a model, with several programs at work and files that cannot be used."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from installed import PACKAGE
from lora import write_lora
from steps import Tiny, TinyPath, random_tokens

from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_options import Lora, ModelOptions
from edge_conflayers.engine.session import LayerMask
from edge_conflayers.layer_search.measured import Found
from edge_conflayers.layer_search.objective import Prediction
from edge_conflayers.layer_search.prompt_kinds import signature
from edge_conflayers.layer_search.skip_sets import SKIP_SETS_PROFILE, SkipSet
from edge_conflayers.learned import Learned
from edge_conflayers.methods import make_method
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import ProfileKey, ProfileStore
from edge_conflayers.text_generator import TextGenerator


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "profiles")


@pytest.fixture(scope="module")
def path(tiny_path: TinyPath) -> Path:
    return tiny_path("llama", n_layer=6, layer_gain=0.2)


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Model:
    return tiny("llama", n_layer=6, layer_gain=0.2)


def tuned(kind: str) -> SkipSet:
    found = Found(LayerMask.layers({1, 2}), Prediction(1.5, 0.5, 4, 0.8, 2.5), 0.5)
    return SkipSet(kind, signature(f"words about {kind}"), found)


def test_a_tune_that_ends_during_a_run_is_not_lost(
    path: Path, model: Model, store: ProfileStore
) -> None:
    with TextGenerator(path, threads=1, profiles=store) as writer:
        list(writer.generate(random_tokens(writer.model, 20), max_tokens=20))
        learned = Learned(model, 1, store)
        sets = learned.skip_sets()
        assert sets.costs is None and len(sets) == 0  # the run has saved nothing yet
        sets.keep(tuned("code"))
        sets.savings = {2048: 0.001}
        learned.keep_skip_sets(sets)
    after = Learned(model, 1, store).skip_sets()
    assert "code" in [each.kind for each in after]
    assert after.savings == {2048: 0.001}
    assert after.costs is not None and "auto" in after.others  # of the run


def test_another_library_or_kernel_has_a_profile_of_its_own(
    model: Model, store: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {Learned(model, 1, store).key({}).file_name}
    names.add(Learned(model, 2, store).key({}).file_name)
    for what in ("engine.model.kernel_choice", "learned.library_build"):
        with monkeypatch.context() as patch:
            patch.setattr(f"edge_conflayers.{what}", lambda *_: "another")
            names.add(Learned(model, 1, store).key({}).file_name)
    assert len(names) == 4


def test_costs_measured_with_one_kernel_are_not_used_with_the_other(
    path: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"EDGE_CONFLAYERS_DATA": str(tmp_path)}
    run = (
        sys.executable,
        "-m",
        "edge_conflayers",
        "run",
        path,
        "-p",
        "x y z",
        "-n",
        "8",
        "-t",
        "1",
    )
    found = []
    for more in ((), ("--kernels", "upstream"), ("--kernels", "ecl")):
        subprocess.run(
            [*run, *more],
            cwd=PACKAGE,
            env=environment,
            check=True,
            capture_output=True,
            timeout=120,
        )
        found.append(len(list((tmp_path / "profiles").glob("*.json"))))
    assert found == [1, 2, 2]


def test_a_state_of_another_model_is_put_aside(
    tiny: Tiny, model: Model, store: ProfileStore, caplog: pytest.LogCaptureFixture
) -> None:
    learned = Learned(model, 1, store)
    key = learned.key(SKIP_SETS_PROFILE)
    store.save(key, {"n_layer": 99, "costs": None})
    method = make_method("auto", model)
    with caplog.at_level(logging.WARNING):
        learned.resume(method)
        learned.keep(method)
    (record,) = caplog.records
    assert "what was learned cannot be used" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert store.path(key).with_suffix(".corrupt").exists()
    state = store.load(key)
    assert state is not None and state["n_layer"] == 6


def test_forgetting_leaves_nothing(model: Model, store: ProfileStore) -> None:
    learned = Learned(model, 1, store)
    sets = learned.skip_sets()
    sets.keep(tuned("code"))
    learned.keep_skip_sets(sets)
    learned.save_head(
        NextStateHead(np.zeros((2 * model.n_embd, 3 * model.n_embd), dtype=np.float32))
    )
    assert learned.load_head() is not None
    with_more_threads = Learned(model, 2, store)
    with_more_threads.skip_sets()
    with_more_threads.keep_skip_sets(sets)
    assert len(with_more_threads.skip_sets()) == 1
    other = ProfileKey(**{**msgspec.structs.asdict(learned.key({})), "model": "another"})
    store.save(other, {"a": 1})
    learned.forget()
    learned.forget()
    assert learned.load_head() is None and len(learned.skip_sets()) == 0
    assert len(with_more_threads.skip_sets()) == 0 and store.load(other) == {"a": 1}


def test_a_model_file_that_goes_away_meanwhile(
    path: Path, tmp_path: Path, store: ProfileStore
) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(path, copy)
    with TextGenerator(copy, threads=1, profiles=store) as writer:
        list(writer.generate(random_tokens(writer.model, 20), max_tokens=8))
        copy.unlink()
    assert store.root is not None and list(store.root.glob("*.json"))


def test_a_text_that_teaches_nothing_writes_nothing(path: Path, store: ProfileStore) -> None:
    with TextGenerator(path, threads=1, profiles=store) as writer:
        list(writer.generate(random_tokens(writer.model, 20), max_tokens=20))
    assert store.root is not None
    (kept,) = store.root.glob("*.json")
    before = kept.stat()
    with TextGenerator(path, threads=1, profiles=store) as writer:
        writer.open(20, 20)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_is_learned_with_an_adapter_is_kept_apart(
    path: Path, store: ProfileStore, tmp_path: Path
) -> None:
    write_lora(tmp_path / "lora.gguf", path)
    adapter = (Lora(tmp_path / "lora.gguf"),)
    names: dict[str, tuple[str, str]] = {}
    for kind, options in (
        ("plain", None),
        ("lora", ModelOptions(lora=adapter)),
        ("half", ModelOptions(lora=(Lora(adapter[0].path, 0.5),))),
        ("yarn", ModelOptions(rope_scaling_type="yarn", rope_freq_scale=0.25)),
        ("cache", ModelOptions(type_k="bf16")),
    ):
        with Model(path, options=options) as model:
            learned = Learned(model, 1, store)
            names[kind] = learned.head_name, learned.key(SKIP_SETS_PROFILE).file_name
            if kind == "plain":
                learned.save_head(
                    NextStateHead(np.zeros((2 * model.n_embd, 3 * model.n_embd), dtype=np.float32))
                )
            # The head foresees the model's states, whatever its cache; costs depend on that too.
            assert (learned.load_head() is not None) == (kind in ("plain", "cache"))
    heads, profiles = ([each[i] for each in names.values()] for i in (0, 1))
    assert names["cache"][0] == names["plain"][0] and len(set(heads)) == len(heads) - 1
    assert len(set(profiles)) == len(profiles)


def test_a_text_with_an_adapter_leaves_the_models_profile_alone(
    path: Path, store: ProfileStore, tmp_path: Path
) -> None:
    write_lora(tmp_path / "lora.gguf", path)
    prompt = list(range(260, 280))

    def profiles(options: ModelOptions | None) -> set[str]:
        with TextGenerator(path, threads=1, profiles=store, options=options) as writer:
            list(writer.generate(prompt, max_tokens=20))
        assert store.root is not None
        return {each.name for each in store.root.glob("*.json")}

    first = profiles(None)
    both = profiles(ModelOptions(lora=(Lora(tmp_path / "lora.gguf"),)))
    assert first and first < both
    assert profiles(None) == both
