"""The arithmetic of a benchmark's report, its JSON and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_conflayers.bench import report as reports
from edge_conflayers.bench import tables
from edge_conflayers.bench.about import about
from edge_conflayers.bench.runner import Generation, Task, TaskRuns
from edge_conflayers.bench.workloads import Prompt
from edge_conflayers.cli.terminal import print_table
from edge_conflayers.decoding.stats import Stats
from edge_conflayers.engine.sampling import SamplerSettings

METHOD_KEYS = {
    "tokens",
    "seconds",
    "tokens_per_second",
    "speedup",
    "lowest_speedup",
    "speedup_by_repeat",
    "speedup_over_upstream",
    "copied",
    "tokens_per_round",
    "acceptance_rate",
    "rounds",
    "drafted_at",
    "accepted_at",
    "prompt_seconds",
    "begin_seconds",
    "draft_seconds",
    "verify_seconds",
    "search_seconds",
    "sample_seconds",
    "identical",
}


def generation(seconds: float, tokens: str = "abcd", **stats: Any) -> Generation:
    ids = tuple(map(ord, tokens))
    filled = Stats(tokens=len(ids), seconds=seconds, rounds=len(ids) - 1, finish_reason="length")
    for name, value in stats.items():
        setattr(filled, name, value)
    return Generation(ids, filled)


def runs(category: str | None = "qa", **methods: list[Generation]) -> TaskRuns:
    return TaskRuns(Task(Prompt("q1", category, "text"), (1, 2, 3)), methods)


def report(*results: TaskRuns, complete: bool = True) -> dict[str, Any]:
    return reports.make_report(
        about(Path("folder/model.gguf"), 2),
        results,
        complete=complete,
        max_tokens=4,
        sampling=SamplerSettings(seed=5),
    )


def test_totals_speedups_and_rates() -> None:
    made = report(
        runs(
            upstream=[generation(1.5)],
            plain=[generation(1.0)],
            conflayers=[
                generation(0.5, rounds=2, drafted=4, accepted=2, draft_seconds=0.2),
            ],
        ),
        runs(
            upstream=[generation(1.5)],
            plain=[generation(1.0)],
            conflayers=[
                generation(1.5, rounds=1, drafted=6, accepted=3, search_seconds=0.1),
            ],
        ),
    )
    methods = made["methods"]
    assert list(methods) == ["upstream", "plain", "conflayers"]
    assert methods["plain"]["tokens_per_second"] == 4.0
    assert methods["plain"]["speedup"] == methods["upstream"]["speedup_over_upstream"] == 1.0
    assert methods["plain"]["speedup_over_upstream"] == pytest.approx(1.5)
    assert methods["plain"]["acceptance_rate"] is None
    ours = methods["conflayers"]
    assert (ours["tokens"], ours["rounds"], ours["seconds"]) == (8, 3, 2.0)
    assert ours["tokens_per_round"] == pytest.approx(8 / 3)
    assert ours["acceptance_rate"] == 0.5
    assert (ours["draft_seconds"], ours["search_seconds"]) == (0.2, 0.1)
    assert ours["speedup"] == 1.0
    assert all(method["identical"] is True for method in methods.values())


def test_the_median_run_counts_whole() -> None:
    slow, middle, quick = (generation(s, draft_seconds=s / 10) for s in (3.0, 2.0, 1.0))
    made = report(runs(plain=[slow, quick, middle]))
    assert made["methods"]["plain"]["seconds"] == 2.0
    assert made["methods"]["plain"]["draft_seconds"] == 0.2
    assert made["prompts"][0]["methods"]["plain"]["all_seconds"] == [3.0, 1.0, 2.0]
    assert reports.median_run([slow, quick]) is quick


def test_the_slowest_text_of_full_length_by_pairs() -> None:
    """A machine of two speeds: within each repeat it is the same for both methods."""
    quick = runs(plain=[generation(1.0)], auto=[generation(0.5)])
    slow = runs(
        plain=[generation(s) for s in (1.0, 3.0, 1.0)],
        auto=[generation(s) for s in (1.25, 3.75, 3.0)],
    )
    short = runs(plain=[generation(1.0, "abc")], auto=[generation(9.0, "abc")])
    made = report(quick, slow, short)
    speedups = [prompt["methods"]["auto"]["speedup"] for prompt in made["prompts"]]
    assert speedups == [pytest.approx(2.0), pytest.approx(0.8), pytest.approx(1 / 9)]
    assert made["methods"]["auto"]["lowest_speedup"] == pytest.approx(0.8)
    assert made["methods"]["plain"]["lowest_speedup"] == 1.0
    assert made["categories"]["qa"]["auto"]["lowest_speedup"] == pytest.approx(0.8)
    assert tables.table_rows(made)[1][5] == "0.80"


def test_each_repeat_has_a_speedup_of_its_own() -> None:
    """A prompt that was interrupted in its second repeat counts in the first only."""
    whole = runs(plain=[generation(1.0), generation(3.0)], auto=[generation(0.5), generation(1.0)])
    cut = runs(plain=[generation(3.0), generation(1.0)], auto=[generation(0.5)])
    made = report(whole, cut)
    assert made["methods"]["auto"]["speedup_by_repeat"] == [pytest.approx(4.0), pytest.approx(3.0)]
    assert made["methods"]["plain"]["speedup_by_repeat"] == [1.0, 1.0]
    assert made["prompts"][0]["methods"]["auto"]["all_speedups"] == [2.0, 3.0]
    alone = report(runs(auto=[generation(1.0)]))
    assert alone["methods"]["auto"]["speedup_by_repeat"] == []


def test_positions_are_summed_over_texts() -> None:
    made = report(
        runs(auto=[generation(1.0, drafted_at=[5, 3], accepted_at=[4, 1])]),
        runs(auto=[generation(1.0, drafted_at=[2, 2, 1], accepted_at=[2, 1, 1])]),
        runs(auto=[generation(1.0)]),
    )
    assert made["methods"]["auto"]["drafted_at"] == [7, 5, 1]
    assert made["methods"]["auto"]["accepted_at"] == [6, 2, 1]


@pytest.mark.parametrize(
    ("told", "drafted", "dropped"),
    [
        ({"attention_dropped": [2], "mlp_dropped": [3, 4]}, 7, ([2], [3, 4])),
        ({"attention_dropped": [2], "mlp_dropped": [3]}, 0, (None, None)),
        ({"attention_dropped": [2], "mlp_dropped": [], "rounds_by": {"layers": 1}}, 7, ([2], [])),
        ({"attention_dropped": [2], "mlp_dropped": [], "rounds_by": {"plain": 9}}, 7, (None, None)),
        ({"source": "lookup"}, 7, (None, None)),
        ({"exit_layer": 3}, 7, (None, None, 3)),
        ({"exit_layer": 3}, 0, (None, None, None)),
        ({"blocks": [(2, 5)]}, 7, (None, None, None, [(2, 5)])),
    ],
)
def test_dropped_layers_of_texts_that_were_drafted_with_them(
    told: dict[str, Any], drafted: int, dropped: tuple[Any, ...]
) -> None:
    text = report(runs(m=[generation(1.0, drafter=told, drafted=drafted)]))["prompts"][0]
    kept = text["methods"]["m"]
    found = (kept["attention_dropped"], kept["mlp_dropped"], kept["exit_layer"], kept["blocks"])
    assert found[: len(dropped)] == dropped


def test_one_different_token_in_one_repeat_is_told() -> None:
    good = runs(plain=[generation(1.0)] * 2, other=[generation(1.0)] * 2)
    bad = runs(plain=[generation(1.0)] * 2, other=[generation(1.0), generation(2.0, "abxd")])
    made = report(good, bad)
    assert made["methods"]["plain"]["identical"] is True
    assert made["methods"]["other"]["identical"] is False
    first, second = (prompt["methods"]["other"] for prompt in made["prompts"])
    assert (first["identical"], first["first_difference"]) == (True, None)
    assert (second["identical"], second["first_difference"]) == (False, 2)
    assert tables.table_rows(made)[1][-1] == "NO"


@pytest.mark.parametrize(
    ("text", "index"), [("abcd", None), ("xbcd", 0), ("abc", 3), ("abcde", 4), ("", 0)]
)
def test_first_difference(text: str, index: int | None) -> None:
    reference = tuple(map(ord, "abcd"))
    assert reports.first_difference([generation(1.0, text)], reference) == index


def test_plain_that_contradicts_itself_is_told() -> None:
    made = report(runs(plain=[generation(1.0), generation(1.0, "abcx")]))
    assert made["methods"]["plain"]["identical"] is False


def test_without_plain_and_upstream_there_is_nothing_to_compare_with() -> None:
    made = report(runs(conflayers=[generation(1.0)]))
    method = made["methods"]["conflayers"]
    assert method["speedup"] is method["speedup_over_upstream"] is method["identical"] is None
    assert (
        method["lowest_speedup"] is made["prompts"][0]["methods"]["conflayers"]["speedup"] is None
    )
    assert tables.table_rows(made)[0][4:7] == ("-", "-", "-")


def test_a_text_of_one_token_has_no_round() -> None:
    made = report(runs(plain=[generation(0.0, "a")]))
    method = made["methods"]["plain"]
    assert (method["tokens_per_round"], method["tokens_per_second"]) == (0.0, 0.0)
    assert method["speedup"] is None


def test_the_keys() -> None:
    made = report(runs(plain=[generation(1.0)]), complete=False)
    assert set(made) == {
        "model",
        "machine",
        "threads",
        "version",
        "upstream_version",
        "date",
        "complete",
        "methods",
        "categories",
        "prompts",
    }
    assert set(made["methods"]["plain"]) == METHOD_KEYS
    assert made["model"] == "model.gguf"
    assert made["threads"] == 2
    assert made["complete"] is False
    assert set(made["machine"]) == {"cpu", "cores", "logical_cpus", "memory_bytes", "os"}
    assert made["machine"]["cores"] >= 1
    assert made["upstream_version"].startswith("llama-cpp-python ")
    prompt = made["prompts"][0]
    assert (prompt["id"], prompt["category"], prompt["prompt_tokens"]) == ("q1", "qa", 3)
    assert (prompt["max_tokens"], prompt["temperature"], prompt["seed"]) == (4, 0.0, 5)
    assert prompt["methods"]["plain"]["finish_reason"] == "length"
    json.dumps(made, allow_nan=False)


def test_every_row_fits_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    made = report(runs(plain=[generation(1.0)], conflayers=[generation(2.0)]))
    rows = tables.table_rows(made)
    assert all(len(row) == len(tables.HEADER) for row in rows)
    print_table(tables.HEADER, rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", "plain", "conflayers"]
    assert len({len(line) for line in lines}) == 1


def by_category(**names: str) -> dict[str, Any]:
    """A report over two categories and a prompt without one."""

    def methods(seconds: float, tokens: str = "abcd") -> dict[str, list[Generation]]:
        other = generation(seconds, tokens, drafted=4, accepted=2, rounds=2)
        return {
            name: [other if kind == "other" else generation(1.0)] for name, kind in names.items()
        }

    return report(
        runs("qa", **methods(0.5)),
        runs("code", **methods(2.0)),
        runs("qa", **methods(0.25, "abxd")),
        runs(None, **methods(8.0)),
    )


def test_categories_are_compared_apart() -> None:
    made = by_category(plain="plain", lookup="other")
    assert list(made["categories"]) == ["qa", "code"]
    assert made["categories"]["qa"]["lookup"] == {
        "tokens": 8,
        "seconds": 0.75,
        "copied": 0.0,
        "tokens_per_second": pytest.approx(8 / 0.75),
        "speedup": pytest.approx(2 / 0.75),
        "lowest_speedup": 2.0,
        "speedup_by_repeat": [pytest.approx(2 / 0.75)],
        "acceptance_rate": 0.5,
        "tokens_per_round": 2.0,
        "identical": False,
    }
    assert made["categories"]["code"]["lookup"]["speedup"] == 0.5
    assert made["categories"]["code"]["lookup"]["identical"] is True
    assert made["categories"]["code"]["plain"]["speedup"] == 1.0
    assert made["methods"]["lookup"]["tokens"] == 16
    assert tables.category_header(made) == ("category", "copied", "plain tokens/s", "lookup x")
    assert tables.category_rows(made) == [
        ("qa", "0%", "4.0", "2.67"),
        ("code", "0%", "4.0", "0.50"),
    ]


def test_categories_without_plain_give_speeds() -> None:
    made = by_category(upstream="plain", lookup="other")
    assert tables.category_header(made) == (
        "category",
        "copied",
        "upstream tokens/s",
        "lookup tokens/s",
    )
    assert tables.category_rows(made) == [("qa", "0%", "4.0", "10.7"), ("code", "0%", "4.0", "2.0")]


def test_prompts_without_categories_make_no_table() -> None:
    made = report(runs(None, plain=[generation(1.0)]))
    assert made["categories"] == {}
    assert tables.category_rows(made) == []


def test_copied_is_the_share_of_all_tokens_that_their_prompts_have() -> None:
    text = "abcdefgh"
    copying = runs(plain=[generation(1.0, text)])
    copying.task = Task(copying.task.prompt, tuple(map(ord, f"say {text}")))
    made = report(copying, runs(plain=[generation(1.0, "ijklmnopqrstuvwxyzABCDEF")]))
    assert made["prompts"][0]["methods"]["plain"]["copied"] == 1.0
    assert made["methods"]["plain"]["copied"] == 8 / 32
