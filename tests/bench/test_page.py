"""The page that a report becomes, and its figures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_conflayers.bench.report import make_report
from edge_conflayers.bench.runner import Generation, Task, TaskRuns
from edge_conflayers.bench.workloads import Prompt
from edge_conflayers.cli import main
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.sampling import SamplerSettings
from edge_conflayers.errors import BadInput

pytest.importorskip("matplotlib")

from edge_conflayers.bench.page import acceptance, dropped, speedup, step_costs, time_split
from edge_conflayers.bench.page.load import load_report
from edge_conflayers.bench.page.style import method_styles
from edge_conflayers.bench.page.write import about_lines, write_page

HEAD = {
    "model": "some<model>.gguf",
    "machine": {"cpu": "Some CPU", "logical_cpus": 2, "memory_bytes": 8 << 30, "os": "Linux"},
    "threads": 2,
    "version": "1.2.3 abc",
    "upstream_version": "llama-cpp-python 0.0.0",
    "date": "2026-11-28T10:11:12+00:00",
    "architecture": "llama",
    "n_layer": 6,
    "arithmetic": "ecl avx2",
    "command": "edge-conflayers bench m --prompts 'p q.jsonl'",
}
COSTS = {
    "t1_ms": 10.0,
    "v": {"2": 1.1, "4": 1.3, "16": 2.5},
    "c": [
        {"skip_set": [], "c": 1.0, "weight_bytes": 80e6},
        {"skip_set": [1, 2], "c": 0.7, "weight_bytes": 50e6},
    ],
    "context": 128,
    "threads": 2,
    "memory_gb_per_s": 10.0,
    "weight_bytes": 80e6,
}


def run(seconds: float, **stats: Any) -> Generation:
    filled = Stats(tokens=4, seconds=seconds, rounds=3, prompt_seconds=0.5)
    for name, value in stats.items():
        setattr(filled, name, value)
    return Generation((1, 2, 3, 4), filled)


def report(**more: Any) -> dict[str, Any]:
    """Two categories of four texts each, twice."""
    results = []
    for index in range(8):
        prompt = Prompt(str(index), ("talk", "sums")[index % 2], "text")
        seconds = 1.0 + index / 10
        layers = run(
            1.0,
            drafted=9,
            accepted=4,
            drafted_at=[3, 2],
            accepted_at=[3, 1],
            draft_seconds=0.2,
            verify_seconds=0.6,
            drafter={"attention_dropped": [2], "mlp_dropped": [2, index % 4]},
        )
        methods = {"plain": [run(seconds)] * 2, "conflayers": [layers, run(2.0)]}
        results.append(TaskRuns(Task(prompt, (1, 2)), methods))
    made = make_report(
        {**HEAD, **more}, results, complete=True, max_tokens=4, sampling=SamplerSettings()
    )
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def earlier() -> dict[str, Any]:
    """What a version wrote that knew nothing of figures."""
    made = report()
    for key in ("version", "architecture", "n_layer", "arithmetic", "command"):
        del made[key]
    new = ("speedup_by_repeat", "drafted_at", "accepted_at", "sample_seconds")
    texts = [run for prompt in made["prompts"] for run in prompt["methods"].values()]
    for total in [*made["methods"].values(), *texts]:
        for key in (
            *new,
            "prompt_seconds",
            "begin_seconds",
            "attention_dropped",
            "mlp_dropped",
            "exit_layer",
        ):
            total.pop(key, None)
    return made


class Links(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.found.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_holds_everything(tmp_path: Path) -> None:
    page, *figures = write_page(report(costs=COSTS), tmp_path / "new" / "folder")
    assert page.name == "index.html"
    names = [figure.name for figure in figures]
    assert names == [
        f"{name}.svg" for name in ("speedup", "time", "acceptance", "verify", "drop", "layers")
    ]
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.found == []
    assert len(links.ids) == len(set(links.ids))
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "<script" not in text
    assert "some&lt;model&gt;.gguf" in text and "some<model>" not in text
    assert "--prompts &#39;p q.jsonl&#39;" in text
    for told in ("Some CPU", "2026-11-28 10:11 UTC", "1.2.3 abc", "llama, 6 layers", "ecl avx2"):
        assert told in text
    assert "Not shown" not in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_figures_stand_alone(tmp_path: Path) -> None:
    for figure in write_page(report(costs=COSTS), tmp_path)[1:]:
        root = ET.fromstring(figure.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "viewBox" in root.attrib and "width" not in root.attrib
        texts = "".join(root.itertext())
        for told in ("some<model>.gguf", "Some CPU", "2026-11-28 10:11 UTC", "bench m --prompts"):
            assert told in texts
        assert "prefers-color-scheme: dark" in texts


def test_the_same_report_gives_the_same_files(tmp_path: Path) -> None:
    first, second = (write_page(report(costs=COSTS), tmp_path / name) for name in "ab")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_what_an_earlier_version_did_not_note_is_named(tmp_path: Path) -> None:
    page, *figures = write_page(earlier(), tmp_path)
    assert [figure.stem for figure in figures] == ["speedup", "time"]
    text = page.read_text(encoding="utf-8")
    assert text.count("Not shown.") == 4
    assert "measured by `bench --report`" in text


def test_without_plain_speeds_take_the_place_of_ratios(tmp_path: Path) -> None:
    made = report()
    for methods in (made["methods"], *made["categories"].values()):
        del methods["plain"]
        methods["conflayers"]["speedup"] = None
    for prompt in made["prompts"]:
        del prompt["methods"]["plain"]
        prompt["methods"]["conflayers"]["speedup"] = None
    page, *figures = write_page(made, tmp_path)
    assert "speedup" not in [figure.stem for figure in figures]
    assert "tokens/s" in page.read_text(encoding="utf-8")


def test_the_spread_of_texts() -> None:
    made = report()
    speedups = sorted(prompt["methods"]["conflayers"]["speedup"] for prompt in made["prompts"])
    low, high = speedup.middle_half(made, speedup.ALL, "conflayers") or (0.0, 0.0)
    assert speedups[0] < low < speedups[4] < high < speedups[-1]
    few = {**made, "prompts": made["prompts"][:3]}
    assert speedup.middle_half(few, speedup.ALL, "conflayers") == (speedups[0], speedups[2])
    assert speedup.middle_half(made, "absent", "conflayers") is None


def test_acceptance_stops_where_too_few_drafts_reach() -> None:
    total = {"drafted_at": [20, 10, 9, 40], "accepted_at": [15, 2, 9, 40]}
    assert acceptance.by_position(total) == [0.75, 0.2]
    assert acceptance.by_position({}) == []


def test_the_parts_of_the_time_add_up() -> None:
    total = {
        "tokens": 10,
        "seconds": 2.0,
        "prompt_seconds": 0.5,
        "draft_seconds": 0.25,
        "verify_seconds": 1.5,
        "search_seconds": 0.125,
    }
    parts = time_split.milliseconds(total)
    assert parts == {
        "prompt_seconds": 50.0,
        "draft_seconds": 25.0,
        "verify_seconds": 150.0,
        "search_seconds": 12.5,
        "other_seconds": 12.5,
    }
    assert sum(parts.values()) == pytest.approx((2.0 + 0.5) * 100)


def test_floors_are_bytes_over_bandwidth() -> None:
    assert step_costs.floor_ms(COSTS, 80e6) == pytest.approx(8.0)
    assert step_costs.floor_ms({**COSTS, "memory_gb_per_s": None}, 80e6) is None
    assert step_costs.floor_ms(COSTS, None) is None


def test_the_map_counts_texts() -> None:
    found = dropped.shares(report())
    assert list(found) == ["conflayers"]
    assert found["conflayers"]["attention_dropped"] == [0, 0, 1, 0, 0, 0]
    assert found["conflayers"]["mlp_dropped"] == [0.25, 0.25, 1, 0.25, 0, 0]


def test_the_map_shows_bridges_and_what_comes_after_an_exit() -> None:
    run = {"exit_layer": 4, "attention_dropped": None, "mlp_dropped": None}
    assert dropped.left_out(run, 6) == {
        "attention_dropped": range(4, 6),
        "mlp_dropped": range(4, 6),
    }
    assert dropped.left_out({**run, "exit_layer": None}, 6) is None
    bridged = {**run, "exit_layer": None, "blocks": [[1, 3], [4, 5]]}
    layers = [1, 2, 4]
    assert dropped.left_out(bridged, 6) == {"attention_dropped": layers, "mlp_dropped": layers}


def test_methods_can_be_told_apart() -> None:
    names = ["plain", *(f"method {i}" for i in range(16))]
    styles = method_styles({"methods": dict.fromkeys(names)})
    assert "plain" not in styles and len(set(styles.values())) == 16


def test_an_interrupted_run_says_so() -> None:
    assert "interrupted" in about_lines({**report(), "complete": False})
    assert "interrupted" not in about_lines(report())


def bench(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_a_page_of_an_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps(earlier()))
    done = bench("--from-json", file, "--report", tmp_path / "page")
    assert done.exit_code == 0, done.output
    assert done.stdout == "" and "index.html and 2 figures" in done.stderr
    assert (tmp_path / "page" / "index.html").is_file()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read"),
        ("no json", "is not JSON"),
        ("[1]", "is no report"),
        ('{"model": "m"}', "is no report"),
        (json.dumps({**HEAD, "methods": {}, "prompts": []}), "reports no prompt"),
        (json.dumps({**HEAD, "methods": {}, "prompts": [1]}), "is no report"),
        (json.dumps({**HEAD, "methods": {"a": {}}, "prompts": [{"methods": {}}]}), "is no report"),
    ],
)
def test_files_that_are_no_report(tmp_path: Path, content: str | None, what: str) -> None:
    file = tmp_path / "file.json"
    if content is not None:
        file.write_text(content)
    done = bench("--from-json", file, "--report", tmp_path / "page")
    assert done.exit_code == 2, done.output
    assert what in done.stderr and len(done.stderr.splitlines()) == 1


def test_options_that_make_no_sense_together(tmp_path: Path) -> None:
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps(earlier()))
    assert "give a folder for it" in bench("--from-json", file).stderr
    assert "leave out MODEL" in bench("m.gguf", "--from-json", file, "--report", tmp_path).stderr
    assert "Missing argument 'MODEL'" in bench("--prompts", file).stderr
    assert "Missing option '--prompts'" in bench("m.gguf").stderr
    taken = bench("--from-json", file, "--report", file)
    assert taken.exit_code == 2 and "cannot be written" in taken.stderr


def test_without_matplotlib_it_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_conflayers.bench.page._PACKAGES", ("no_such_package",))
    done = bench("absent.gguf", "--prompts", "absent.jsonl", "--report", tmp_path / "page")
    assert done.exit_code == 2
    assert "pip install 'edge-conflayers[report]'" in done.stderr
    assert not (tmp_path / "page").exists()


def test_load_report_keeps_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(json.dumps(report()))
    assert load_report(file) == report()
    with pytest.raises(BadInput, match="cannot be read"):
        load_report(tmp_path)
