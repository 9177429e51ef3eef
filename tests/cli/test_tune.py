"""``tune``, run in this process on a tiny model."""

from __future__ import annotations

import importlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model

from edge_conflayers.cli import main
from edge_conflayers.cli.tuned import ranges
from edge_conflayers.costs.model import Measurement, StepCosts
from edge_conflayers.engine.model import Model
from edge_conflayers.layer_search import ranking
from edge_conflayers.layer_search.measured import MeasuredSearch
from edge_conflayers.layer_search.skip_sets import SKIP_SETS_PROFILE, SkipSets
from edge_conflayers.learned import Learned
from edge_conflayers.next_state.head import NextStateHead
from edge_conflayers.profiles import DATA_VARIABLE, ProfileStore
from edge_conflayers.tune import teach_exits, teaching, tuning
from edge_conflayers.tune.lessons import Lessons

N_LAYER = 6
# The modules: as attributes of the package the names may also be the commands.
command = importlib.import_module("edge_conflayers.cli.tune")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "tiny.gguf", "llama", n_layer=N_LAYER, layer_gain=0.1
    )


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    records = [
        {"category": "code", "prompt": "def mean(values):\n    total = 0\n    for v in values:"},
        {"category": "code", "prompt": "class Stack:\n    def push(self, x):\n        self.x = x"},
        {"category": "talk", "prompt": "Tell me a story about a lighthouse and a fox."},
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def tune(model: Path, prompts: Path, *more: object) -> Result:
    return call(
        *("tune", model, "--prompts", prompts, "--budget", 4, "-n", 40, "-t", 1, "--raw"), *more
    )


def kept(model: Path) -> SkipSets:
    with Model(model) as loaded:
        sets = Learned(loaded, 1).skip_sets()
    assert sets.costs is not None
    return sets


@pytest.fixture
def steady_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's steps are too short to be measured on a busy machine."""
    at = Measurement(240, t1=1e-3, attention=6e-5, mlp=9e-5, v={2: 1.1, 4: 1.2, 16: 2.0})
    monkeypatch.setattr(tuning, "measure_costs", lambda session, quick: StepCosts((at,)))
    monkeypatch.setattr(tuning, "measure_savings", lambda session, vocabulary: {})


@pytest.mark.usefixtures("steady_costs")
def test_sets_are_found_kept_shown_and_used(tiny: Path, prompts: Path) -> None:
    done = tune(tiny, prompts)
    assert done.exit_code == 0, done.output
    sets = {each.kind: each for each in kept(tiny)}
    assert set(sets) == {"code", "talk"}
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["kind", "code", "talk"]
    for line in lines[1:3]:
        found = sets[line.split()[0]].found
        assert found.mask and line.endswith(f"{found.prediction.speed:.2f}")
    assert kept(tiny).costs is not None and kept(tiny).orders is not None

    run = ("run", tiny, "-n", 24, "-t", 1, "--raw", "-p", "def total(values):\n    total = 0")
    stats = prompts.parent / "stats.json"
    plain = call(*run)
    measured = call(*run, "--method", "measured", "--stats-json", stats)
    assert measured.exit_code == 0, measured.output
    assert measured.stdout == plain.stdout
    drafter = json.loads(stats.read_text())["drafter"]
    found = sets["code"].found
    assert drafter["kind"] == "code"
    assert drafter["predicted_speedup"] == found.prediction.speed
    dropped = found.mask.attention if found.prediction.speed > 1 else ()
    assert drafter["attention_dropped"] == sorted(dropped)


@pytest.fixture
def steps_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a next-state head, whatever they take."""
    monkeypatch.setattr("edge_conflayers.drafters.next_state.PAYS_FROM", 0.0)


def test_where_steps_take_little_no_head_is_taught(tiny: Path, prompts: Path) -> None:
    done = tune(tiny, prompts)
    assert done.exit_code == 0 and "next-state head" not in done.output
    with Model(tiny) as model:
        assert Learned(model, 1).load_head() is None


@pytest.mark.usefixtures("steps_take_long")
def test_a_next_state_head_is_taught_kept_and_used(tiny: Path, prompts: Path) -> None:
    done = tune(tiny, prompts, "--budget", 20)  # half of it, for 1024 tokens on a busy machine
    assert done.exit_code == 0, done.output
    assert re.search(
        r"foresees \d+% in one guess and \d+% in four \(texts of \d+ tokens",
        done.stdout,
    )
    with Model(tiny) as model:
        head = Learned(model, 1).load_head()
    assert head is not None and head.written

    run = ("run", tiny, "-n", 24, "-t", 1, "--raw", "-p", "def total(values):\n    total = 0")
    stats = prompts.parent / "stats.json"
    plain = call(*run, "--method", "plain")
    auto = call(*run, "--stats-json", stats)
    assert auto.exit_code == 0, auto.output
    assert auto.stdout == plain.stdout
    assert json.loads(stats.read_text())["drafter"]["draft_vocabulary"] > 0


def test_a_damaged_head_is_put_aside_with_one_warning(
    tiny: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Model(tiny) as model:
        learned = Learned(model, 1)
        weights = np.zeros((2 * model.n_embd, 3 * model.n_embd), dtype=np.float32)
        learned.save_head(NextStateHead(weights))
        path = data / "profiles" / learned.head_name
        path.write_bytes(path.read_bytes()[:-100])
        assert learned.load_head() is None and learned.load_head() is None
    done = call("run", tiny, "-n", 4, "-t", 1, "--raw", "-p", "x")
    assert done.exit_code == 0
    warnings = [each for each in caplog.records if "put aside" in each.getMessage()]
    assert len(warnings) == 1 and path.with_suffix(".corrupt").exists()


@pytest.mark.usefixtures("steps_take_long")
def test_an_interrupt_while_teaching_keeps_what_was_taught(
    tiny: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Lessons.take

    def interrupted(self: Lessons, *arguments: Any) -> None:
        take(self, *arguments)
        if self.tokens == 1300:
            raise KeyboardInterrupt

    monkeypatch.setattr(Lessons, "take", interrupted)
    done = tune(tiny, prompts, "--budget", 60)
    assert done.exit_code == 130 and re.search(r"texts of 1\d\d\d tokens", done.stdout)
    with Model(tiny) as model:
        assert Learned(model, 1).load_head() is not None
    assert "code" not in done.stdout


@pytest.mark.usefixtures("steady_costs")
def test_an_interrupt_keeps_the_best_so_far(
    tiny: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = MeasuredSearch.judge
    bests: list[Any] = []

    def interrupted(self: MeasuredSearch, *arguments: Any) -> bool:
        better = judge(self, *arguments)
        if len(bests) == 2:
            raise KeyboardInterrupt
        if better:
            assert self.found is not None
            bests.append(self.found)
        return better

    def worst_first(*arguments: Any) -> list[list[int]] | None:
        found = orders(*arguments)
        return None if found is None else [each[::-1] for each in found]

    orders = ranking.orders
    monkeypatch.setattr(ranking, "orders", worst_first)
    monkeypatch.setattr(MeasuredSearch, "judge", interrupted)
    done = tune(tiny, prompts, "--budget", 30)  # for two better sets on a busy machine
    assert done.exit_code == 130
    assert "what was found so far is kept" in done.output
    (found,) = kept(tiny)
    assert found.kind == "code" and found.found == bests[-1]
    assert "code" in done.stdout and "talk" not in done.stdout


def test_tuning_goes_on_from_what_was_found(
    tiny: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune(tiny, prompts).exit_code == 0
    before = {each.kind: each.found for each in kept(tiny)}
    first: list[Any] = []
    judge = MeasuredSearch.judge

    def watched(self: MeasuredSearch, mask: Any, records: Any) -> bool:
        if self.judged == 0:
            first.append(mask)
        return judge(self, mask, records)

    monkeypatch.setattr(MeasuredSearch, "judge", watched)
    monkeypatch.setattr("edge_conflayers.cli.progress.on_terminal", lambda stream: True)
    again = tune(tiny, prompts)
    assert again.exit_code == 0 and "measuring" not in again.stderr
    assert first == [before["code"].mask, before["talk"].mask]
    for each in kept(tiny):
        assert each.found.prediction.speed >= before[each.kind].prediction.speed

    first.clear()
    fresh = tune(tiny, prompts, "--fresh")
    assert fresh.exit_code == 0 and "measuring" in fresh.stderr


@pytest.mark.parametrize(
    "content", ["{", '{"version": 1}', None], ids=["cut off", "no key", "another model's sets"]
)
def test_a_damaged_profile_is_put_aside_with_one_warning(
    tiny: Path, prompts: Path, content: str | None, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ProfileStore()
    with Model(tiny) as model:
        key = Learned(model, 1).key(SKIP_SETS_PROFILE)
    run = ("run", tiny, "-n", 4, "-t", 1, "-p", "x", "--method", "measured")
    for command in (lambda: tune(tiny, prompts, "--budget", 1), lambda: call(*run)):
        store.save(key, SkipSets(9).to_json())
        if content is not None:
            store.path(key).write_text(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            done = command()
        assert done.exit_code == 0, done.output
        (warning,) = [r for r in caplog.records if r.name == "edge_conflayers.profiles"]
        assert "cannot be used" in warning.getMessage()
        assert store.path(key).with_suffix(".corrupt").exists()
        assert store.load(key) is not None  # a new one


def test_models_that_cannot_be_tuned(prompts: Path, tmp_path: Path) -> None:
    for arch, n_layer, why in (("mamba", 4, "'mamba' cannot be served"), ("llama", 2, "2 layers")):
        model = write_tiny_model(tmp_path / f"{arch}.gguf", arch, n_layer=n_layer)
        done = tune(model, prompts)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert why in line


def test_texts_that_are_too_short(
    tiny: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_conflayers.tune.find_skip_sets.LEAST_TEXT", 1000)
    done = tune(tiny, prompts)
    assert done.exit_code == 0
    assert "code: too little text" in done.stdout and "talk: too little text" in done.stdout


def test_bad_input(tiny: Path, tmp_path: Path) -> None:
    assert "cannot be read" in tune(tiny, tmp_path / "absent.jsonl").stderr
    assert call("tune", tmp_path / "absent.gguf").exit_code == 2
    assert call("tune", tiny, "--budget", 0).exit_code == 2
    too_long = call("tune", tiny, "-n", 10**9)
    assert too_long.exit_code == 2 and too_long.stderr.count("\n") == 1
    assert "predict (-n) is 1000000000" in too_long.stderr


@pytest.mark.parametrize(
    ("layers", "shown"), [((), "none"), ((3,), "3"), ((9, 3, 4, 5, 11, 12), "3-5,9,11-12")]
)
def test_layers_are_shown_as_ranges(layers: tuple[int, ...], shown: str) -> None:
    assert ranges(layers) == shown


def test_default_prompts() -> None:
    kinds = {each.category for each in command._default()}
    assert kinds == {"code", "summary", "questions", "translation", "chat"}


@pytest.mark.usefixtures("steps_take_long", "steady_costs")
def test_all_prompts_and_texts_of_the_user_teach(
    tiny: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the --limit of those that layers are searched with."""
    given: list[Any] = []

    def teach(model: Model, prompts: Any, **options: Any) -> None:
        given.extend([prompts, list(options["user_texts"])])

    def teach_exits(model: Model, prompts: Any, user_texts: Any, **options: Any) -> None:
        given.extend([prompts, list(user_texts)])

    monkeypatch.setattr(teaching, "teach", teach)
    monkeypatch.setattr(tuning, "teach_exits", teach_exits)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.md").write_text("One text.")
    (texts / "two.py").write_text("two = 2")
    done = tune(tiny, prompts, "--texts", texts, "--limit", 1, "--budget", 1)
    assert done.exit_code == 0, done.output
    assert [len(each) for each in given] == [3, 2]
    tune(tiny, prompts, "--exits", "--texts", texts, "--limit", 1, "--budget", 1)
    assert given[2:] == given[:2]
    done = tune(tiny, prompts, "--texts", tmp_path / "nowhere")
    assert done.exit_code == 2 and "cannot be read" in done.stderr


def test_fresh_forgets_the_head_too(tiny: Path, prompts: Path) -> None:
    with Model(tiny) as model:
        learned = Learned(model, 1)
        weights = np.zeros((2 * model.n_embd, 3 * model.n_embd), dtype=np.float32)
        learned.save_head(NextStateHead(weights))
        assert tune(tiny, prompts, "--budget", 1).exit_code == 0
        assert learned.load_head() is not None
        assert tune(tiny, prompts, "--budget", 1, "--fresh").exit_code == 0
        assert learned.load_head() is None


def test_exits_are_taught_kept_and_used(
    tiny: Path, prompts: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("run", tiny, "-p", "def mean(values):", "--raw", "-n", 24, "-t", 1)
    missing = call(*asked, "--method", "dssd")
    assert missing.exit_code == 2 and "--exits" in missing.output
    monkeypatch.setattr(teach_exits._Collector, "full", property(lambda self: len(self) >= 700))
    result = tune(tiny, prompts, "--exits", "--budget", 100)
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"exit after \d layers: foresees \d+%", result.output)) == 3
    assert re.search(r"taught with texts of \d+ tokens", result.output)
    plain = call(*asked, "--method", "plain")
    for epsilon in ("0", "0.5", "1"):
        stats = data / f"{epsilon}.json"
        found = call(*asked, "--method", "dssd", "--epsilon", epsilon, "--stats-json", stats)
        assert found.exit_code == 0 and found.stdout == plain.stdout
        report = json.loads(stats.read_text())
        assert report["drafter"]["epsilon"] == float(epsilon)
        assert [each["layer"] for each in report["drafter"]["exits"]] == [2, 3, 4]
        assert report["drafted"] > 0 or epsilon != "0"
    fresh = call(*asked, "--method", "dssd", "--fresh")
    assert fresh.exit_code == 0 and fresh.stdout == plain.stdout
    compared = call(
        *("bench", tiny, "--prompts", prompts, "--methods", "plain,dssd", "-n", 12, "-t", 1),
        *("--raw", "--epsilon", "0"),
    )
    assert compared.exit_code == 0, compared.output
    assert "dssd" in compared.stdout
    useless = call(*asked, "--epsilon", "0.5")
    assert useless.exit_code == 2 and "dssd" in useless.output
    with Model(tiny) as loaded:
        learned = Learned(loaded, 1)
        assert learned.load_exits() is not None
        learned.forget()
        assert learned.load_exits() is None


def test_damaged_exits_are_put_aside(tiny: Path, data: Path) -> None:
    with Model(tiny) as loaded:
        learned = Learned(loaded, 1)
        file = data / "profiles" / learned.exits_name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"PK nonsense")
        assert learned.load_exits() is None
        assert not file.exists() and file.with_suffix(".corrupt").exists()
