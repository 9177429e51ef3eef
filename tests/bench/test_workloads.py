"""Reading prompts from a user's file, and choosing some of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_conflayers.bench.workloads import Prompt, load, spread
from edge_conflayers.errors import BadInput

SPEC_BENCH = Path(__file__).parents[3] / "shared" / "data" / "spec_bench.jsonl"


def write(path: Path, *lines: object) -> Path:
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_json_lines_of_each_kind(tmp_path: Path) -> None:
    file = write(
        tmp_path / "p.jsonl",
        {"question_id": 81, "category": "writing", "turns": ["first", "second"]},
        "",
        {"task_id": "HumanEval/0", "prompt": "def f():\n"},
        {"question": "How many?", "answer": "3"},
    )
    assert load(file) == [
        Prompt("81", "writing", "first"),
        Prompt("HumanEval/0", None, "def f():\n"),
        Prompt("4", None, "How many?"),
    ]


def test_json_lines_are_known_without_the_suffix(tmp_path: Path) -> None:
    assert load(write(tmp_path / "p.txt", {"prompt": "one"})) == [Prompt("1", None, "one")]


def test_a_line_separator_inside_json_does_not_end_the_line(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a\u2028b\x85c"}\r\n{"prompt": "d"}\r\n', encoding="utf-8")
    assert [prompt.text for prompt in load(file)] == ["a\u2028b\x85c", "d"]


def test_text_has_a_prompt_per_block(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeff\r\nOne line.\r\n\r\n  \r\n{Two\r\n  lines}".encode())
    assert load(file) == [Prompt("2", None, "One line."), Prompt("5", None, "{Two\n  lines}")]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"answer": "4"}', "has none of turns, prompt, question"),
        ('{"turns": []}', "'turns' is not a list that starts with a text"),
        ('{"turns": "text"}', "'turns' is not a list that starts with a text"),
        ('{"prompt": 3}', "'prompt' is not a text"),
        ('{"question": "  "}', "'question' is not a text"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    file = write(tmp_path / "p.jsonl", {"prompt": "good"}, line)
    with pytest.raises(BadInput) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}:2: {what}")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_text_are_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes(b"one\n\ntwo \xff\n")
    with pytest.raises(BadInput, match=r"p\.txt:3: not UTF-8"):
        load(file)


@pytest.mark.parametrize("content", ["", "\n \n"])
@pytest.mark.parametrize("name", ["p.jsonl", "p.txt"])
def test_no_prompt_at_all(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(BadInput, match="holds no prompt"):
        load(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "missing.jsonl")
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path)


def prompts_of(*categories: str | None) -> list[Prompt]:
    return [Prompt(str(i), category, "text") for i, category in enumerate(categories)]


def test_without_categories_prompts_are_spread_over_the_file() -> None:
    chosen = spread(prompts_of(*[None] * 100), 4)
    assert [prompt.id for prompt in chosen] == ["0", "25", "50", "75"]


def test_what_cannot_be_shared_out_goes_to_larger_categories() -> None:
    prompts = prompts_of("a", "b", "b", "c", "c", "c")
    assert Counter(p.category for p in spread(prompts, 2)) == {"c": 1, "b": 1}
    assert Counter(p.category for p in spread(prompts, 4)) == {"c": 2, "b": 1, "a": 1}
    assert spread(prompts, None) == spread(prompts, 7) == prompts


@given(
    categories=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40),
    limit=st.integers(1, 45),
)
def test_spread_is_even(categories: list[str | None], limit: int) -> None:
    prompts = prompts_of(*categories)
    chosen = spread(prompts, limit)
    assert len(chosen) == min(limit, len(prompts))
    assert chosen == [prompt for prompt in prompts if prompt in chosen]
    there, taken = Counter(categories), Counter(prompt.category for prompt in chosen)
    for category in there:
        if taken[category] < there[category]:  # it had more to give: no other got two more
            assert max(taken.values()) - taken[category] <= 1


@pytest.mark.skipif(not SPEC_BENCH.exists(), reason="needs ../shared/data/spec_bench.jsonl")
def test_eight_of_spec_bench_cover_its_tasks() -> None:
    categories = {prompt.category for prompt in spread(load(SPEC_BENCH), 8)}
    assert len(categories) == 8
    assert {"translation", "summarization", "qa", "math_reasoning", "rag"} < categories
    assert len({prompt.category for prompt in spread(load(SPEC_BENCH), 13)}) == 13


def test_what_is_no_file_of_prompts(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="more than 128 MiB"):
        load(Path("/dev/zero"))
    (tmp_path / "nul").write_bytes("a b\n".encode("utf-16-le"))
    with pytest.raises(BadInput, match="NUL bytes"):
        load(tmp_path / "nul")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (r'{"prompt": "a \ud800 b"}', "half a character (U+D800)"),
        (r'{"prompt": "a", "category": "\udfff"}', "half a character (U+DFFF)"),
        (r'{"prompt": "a", "id": "\ud83d"}', "half a character (U+D83D)"),
        ('{"prompt": "a", "n": ' + "9" * 5000 + "}", "not JSON (a number of too many digits)"),
        ('{"prompt": "a", "n": ' + "[" * 100_000, "not JSON (nested too deeply)"),
    ],
)
def test_json_that_is_no_text(tmp_path: Path, line: str, why: str) -> None:
    file = write(tmp_path / "p.jsonl", {"prompt": "good \U0001f642"}, line)
    with pytest.raises(BadInput) as failure:
        load(file)
    assert str(failure.value).startswith(f"{file}:2: ") and why in str(failure.value)
