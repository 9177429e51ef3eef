"""``bench``, run in this process."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gguf_models import write_tiny_model
from lora import write_lora

from edge_conflayers.bench.runner import LocalEngine
from edge_conflayers.bench.upstream_client import find_library
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.hub import models as store

# The module: as an attribute of the package the name may also be the command.
command = importlib.import_module("edge_conflayers.cli.bench")


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(command.bench, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", "llama", n_layer=6)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its heads take any type of cache."""
    folder = tmp_path_factory.mktemp("wide")
    return write_tiny_model(folder / "wide.gguf", "llama", n_layer=2, n_embd=128)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    lines = (
        {"question_id": i, "category": "ab"[i % 2], "turns": [f"Name {i + 2} fruits."]}
        for i in range(6)
    )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.model
def test_a_short_run_on_a_real_model(prompts: Path, tmp_path: Path) -> None:
    methods = ["plain", "conflayers"]
    try:
        find_library(None)
        methods.insert(0, "upstream")
    except BadInput:
        pass  # the library for comparisons is not built
    model, out = store.resolve("smollm2-135m"), tmp_path / "out.json"
    done = bench(
        *(model, "--prompts", prompts, "--methods", ",".join(methods)),
        *("--limit", 2, "-n", 12, "-t", 1, "--json", out),
    )
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["complete"] is True
    assert list(report["methods"]) == methods
    for total in report["methods"].values():
        assert 2 <= total["tokens"] <= 24
        assert total["seconds"] > 0
        assert total["speedup"] > 0
    plain, ours = report["methods"]["plain"], report["methods"]["conflayers"]
    assert plain["identical"] is True and plain["acceptance_rate"] is None
    assert ours["draft_seconds"] > 0 and 0 <= ours["acceptance_rate"] <= 1
    assert [prompt["category"] for prompt in report["prompts"]] == ["a", "b"]
    tables = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert tables == ["method", *methods, "category", "a", "b"]


def test_with_upstreams_kernels_every_text_is_upstreams(
    tiny: Path, prompts: Path, tmp_path: Path
) -> None:
    try:
        find_library(None)
    except BadInput:
        pytest.skip("no unpatched build in build/upstream; make it with `make upstream`")
    out = tmp_path / "out.json"
    done = bench(
        *(tiny, "--prompts", prompts, "--methods", "upstream,plain,conflayers"),
        *("-n", 60, "-t", 2, "-c", 512, "--temp", 1, "--kernels", "upstream", "--json", out),
    )
    assert done.exit_code == 0, done.output
    totals = json.loads(out.read_text())["methods"]
    assert [total["identical"] for total in totals.values()] == [True] * 3
    assert totals["conflayers"]["acceptance_rate"] is not None


def test_methods_agree_on_a_tiny_model(tiny: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = (tiny, "--prompts", prompts, "-n", 80, "-t", 1, "-c", 512, "--json", out)
    for sampling in ((), ("--temp", 1, "--seed", 3)):
        done = bench(*arguments, *sampling, "--repeat", 2)
        assert done.exit_code == 0, done.output
        report = json.loads(out.read_text())
        assert list(report["methods"]) == ["plain", "auto"]
        assert all(method["identical"] for method in report["methods"].values())
        assert report["methods"]["plain"]["speedup_over_upstream"] is None
        runs = [prompt["methods"]["plain"]["all_seconds"] for prompt in report["prompts"]]
        assert [len(seconds) for seconds in runs] == [2] * 6


def test_methods_side_by_side_and_by_category(tiny: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    methods = ["plain", "lookup", "recycling", "draft-model"]
    done = bench(
        *(tiny, "--prompts", prompts, "-n", 40, "-t", 1, "-c", 512, "--json", out),
        *("--methods", ",".join(methods), "--draft-model", tiny, "--repeat", 2),
    )
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert list(report["methods"]) == methods
    assert all(method["identical"] for method in report["methods"].values())
    assert report["methods"]["draft-model"]["acceptance_rate"] > 0.5
    assert list(report["categories"]) == ["a", "b"]
    for category in report["categories"].values():
        assert list(category) == methods
        assert all(method["identical"] for method in category.values())
    header, *rows = done.stdout.splitlines()[-3:]
    assert header.split()[0] == "category"
    assert [row.split()[0] for row in rows] == ["a", "b"]
    assert {len(row) for row in rows} == {len(header)}


def test_a_page_beside_the_json(
    tiny: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sys.argv", ["x", "bench", "a model", "--report", "page"])
    out, page = tmp_path / "out.json", tmp_path / "page"
    done = bench(
        *(tiny, "--prompts", prompts, "-n", 24, "-t", 1, "--json", out, "--report", page),
        *("--methods", "plain,conflayers,layerskip,recycling"),
    )
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert report["command"] == "edge-conflayers bench 'a model' --report page"
    assert (report["architecture"], report["n_layer"]) == ("llama", 6)
    costs = report["costs"]
    assert list(costs["v"]) == [str(n) for n in range(2, 17)] and costs["c"]
    assert 0 < costs["c"][-1]["weight_bytes"] < costs["weight_bytes"]
    assert sum(report["methods"]["conflayers"]["drafted_at"]) > 0
    for prompt in report["prompts"]:
        assert prompt["methods"]["layerskip"]["exit_layer"] == 3
        assert prompt["methods"]["recycling"]["mlp_dropped"] is None
    figures = sorted(each.stem for each in page.glob("*.svg"))
    assert {"speedup", "time", "verify", "drop", "layers"} <= set(figures)
    assert "index.html" in done.stderr and "index.html" not in done.stdout


def test_an_interrupt_keeps_what_is_complete(
    tiny: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    calls: list[Any] = []
    generate = LocalEngine.generate

    def interrupted(self: LocalEngine, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2 * (1 + 3) + 1:  # two methods: warm-up, three prompts, half a prompt
            raise KeyboardInterrupt
        return generate(self, *arguments)

    monkeypatch.setattr(LocalEngine, "generate", interrupted)
    done = bench(tiny, "--prompts", prompts, "-n", 5, "-t", 1, "--json", out)
    assert done.exit_code == 130
    report = json.loads(out.read_text())
    assert report["complete"] is False
    assert len(report["prompts"]) == 3
    assert "3 of 6 prompts" in done.stderr
    assert "auto" in done.stdout


def test_an_interrupt_before_anything_is_complete_writes_nothing(
    tiny: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"

    def interrupted(*_: Any, **__: Any) -> Any:
        return [], False

    monkeypatch.setattr("edge_conflayers.bench.runner.run", interrupted)
    done = bench(tiny, "--prompts", prompts, "-t", 1, "--json", out)
    assert done.exit_code == 130
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (
            ("--methods", "plain,nonsense"),
            "no method 'nonsense'; choose from upstream, upstream-lookup, auto",
        ),
        (("--methods", ","), "names no method"),
        (("--methods", "upstream", "--upstream-lib", "nowhere"), "holds no llama library"),
        (("--json", "no/such/folder/out.json"), "cannot be written"),
        (("-n", "9999"), "the context holds 4096"),
        (("--temp", "-1"), "temperature (--temp) is -1.0"),
        (("--methods", "draft-model"), "needs a second model"),
        (
            ("--draft-model", "absent.gguf"),
            "of use to the methods draft-model and auto-draft-model only",
        ),
        (("--methods", "draft-model", "--draft-model", "absent.gguf"), "neither a file"),
    ],
)
def test_bad_arguments(tiny: Path, prompts: Path, arguments: tuple[str, ...], what: str) -> None:
    done = bench(tiny, "--prompts", prompts, *arguments)
    assert isinstance(done.exception, BadInput), done.output
    assert what in str(done.exception)


def test_bad_files(tiny: Path, prompts: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "fine"}\n{"nothing": 1}\n')
    assert f"{broken}:2:" in str(bench(tiny, "--prompts", broken).exception)
    absent = bench(tmp_path / "absent.gguf", "--prompts", prompts)
    assert isinstance(absent.exception, EdgeConflayersError)


def test_tuned_starts_from_what_tune_has_found(
    tiny: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    given = (tiny, "--prompts", prompts, "--limit", 2, "-n", 8, "-t", 1, "--tuned")
    with pytest.raises(BadInput, match="is not tuned for 1 threads; run `tune` first"):
        raise bench(*given).exception or AssertionError
    tune = importlib.import_module("edge_conflayers.cli.tune")
    arguments = (tiny, "--prompts", prompts, "--limit", 1, "--budget", 2, "-n", 32, "-t", 1)
    tuned = CliRunner().invoke(tune.tune, [str(each) for each in arguments])
    assert tuned.exit_code == 0, tuned.output
    resumed = []
    init = LocalEngine.__init__

    def noted(self: LocalEngine, *args: Any, **settings: Any) -> None:
        resumed.append((args[0], settings["learned"] is not None))
        init(self, *args, **settings)

    monkeypatch.setattr(LocalEngine, "__init__", noted)
    done = bench(*given, "--methods", "plain,auto,measured")
    assert done.exit_code == 0, done.output
    assert resumed == [("plain", False), ("auto", True), ("measured", True)]


def test_fresh_restarts_methods_before_each_prompt(
    tiny: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts = 0
    restart = LocalEngine.restart

    def counted(self: LocalEngine) -> None:
        nonlocal restarts
        restarts += 1
        restart(self)

    monkeypatch.setattr(LocalEngine, "restart", counted)
    given = (tiny, "--prompts", prompts, "--limit", 4, "-n", 4, "-t", 1, "--methods", "plain")
    assert bench(*given).exit_code == 0
    kept, restarts = restarts, 0
    assert bench(*given, "--fresh").exit_code == 0
    assert restarts == kept + 4


def test_models_are_run_with_the_options_of_run(
    wide: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[str] = []
    init = LocalEngine.__init__

    def noted(self: LocalEngine, *args: Any, **settings: Any) -> None:
        changes.append(args[1].changes)
        init(self, *args, **settings)

    monkeypatch.setattr(LocalEngine, "__init__", noted)
    out, lora = tmp_path / "out.json", tmp_path / "lora.gguf"
    write_lora(lora, wide)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    texts = {}
    for given in (
        (),
        ("--lora", lora),
        ("--rope-scale", "8"),
        ("-ctk", "q8_0", "-ctv", "q8_0"),
        ("--system", "Be brief."),
        ("--chat-template", template),
        ("--raw",),
    ):
        done = bench(
            *(wide, "--prompts", prompts, "--limit", 2, "-n", 40, "-t", 1, "-c", 512, *given),
            *("--methods", "plain,lookup", "--json", out),
        )
        assert done.exit_code == 0, done.output
        report = json.loads(out.read_text())
        assert all(method["identical"] for method in report["methods"].values())
        texts[given] = json.dumps([each["prompt_tokens"] for each in report["prompts"]])
        cached = "cache q8_0 q8_0" in report["arithmetic"]
        assert cached == ("-ctk" in given)
        assert changes[-1].startswith("lora ") == ("--lora" in given)
        assert ("rope_freq_scale 0.125" in changes[-1]) == ("--rope-scale" in given)
    assert texts["--system", "Be brief."] != texts[()] != texts["--chat-template", template]
    assert texts["--raw",] != texts[()] == texts["--lora", lora]


def test_upstream_is_given_the_same_options(wide: Path, prompts: Path, tmp_path: Path) -> None:
    try:
        find_library(None)
    except BadInput:
        pytest.skip("no unpatched build in build/upstream; make it with `make upstream`")
    out, lora = tmp_path / "out.json", tmp_path / "lora.gguf"
    write_lora(lora, wide)
    options = ("--lora-scaled", lora, "0.5", "--rope-scale", "4", "-ctk", "q8_0", "-ctv", "q8_0")
    for given in ((), options):
        done = bench(
            *(wide, "--prompts", prompts, "--limit", 2, "--methods", "upstream,plain"),
            *("-n", 60, "-t", 1, "-c", 512, "--kernels", "upstream", "--json", out, *given),
        )
        assert done.exit_code == 0, done.output
        totals = json.loads(out.read_text())["methods"]
        assert [total["identical"] for total in totals.values()] == [True, True]
    done = bench(
        *(wide, "--prompts", prompts, "--limit", 1, "--methods", "upstream"),
        *("-n", 4, "-t", 1, "--lora", tmp_path / "no.gguf"),
    )
    assert isinstance(done.exception, BadInput)


def test_options_survive_the_way_to_another_process(tmp_path: Path) -> None:
    from edge_conflayers.engine.model_options import Lora, ModelOptions

    options = ModelOptions(
        lora=(Lora(tmp_path / "a.gguf", 0.5),), type_k="q8_0", rope_scaling_type="yarn"
    )
    for each in (options, ModelOptions()):
        assert ModelOptions.from_json(json.loads(json.dumps(each.to_json()))) == each
