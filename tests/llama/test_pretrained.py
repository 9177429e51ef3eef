"""``Llama.from_pretrained``, with a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, serving
from steps import TinyPath

from edge_conflayers import EdgeConflayersError, Llama

OPTIONS: dict[str, Any] = {"verbose": False, "fresh": True, "n_threads": 1, "n_ctx": 64}


@pytest.fixture
def hub(tiny_path: TinyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = tiny_path("llama", n_layer=2).read_bytes()
    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        for name in ("tiny-q4_0.gguf", "tiny-q8_0.gguf", "parts/two.gguf", "README.md"):
            found.files[f"org/repo/{name}"] = model if name.endswith("gguf") else b"words"
        yield found


def test_a_pattern_names_a_file(hub: FakeHub, tmp_path: Path) -> None:
    for pattern in ("*q8_0.gguf", "tiny-q4_0.gguf", "parts/*"):
        with Llama.from_pretrained("org/repo", pattern, cache_dir=tmp_path, **OPTIONS) as llm:
            assert Path(llm.model_path).is_file() and tmp_path in Path(llm.model_path).parents
            assert llm("a", max_tokens=2)["choices"]  # type: ignore[index]


def test_a_file_that_is_there_needs_no_network(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: dict[str, Any] = {"cache_dir": tmp_path, **OPTIONS}
    Llama.from_pretrained("org/repo", "tiny-q8_0.gguf", **where).close()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    Llama.from_pretrained("org/repo", "tiny-q8_0.gguf", **where).close()


def test_a_folder_and_further_files(hub: FakeHub, tmp_path: Path) -> None:
    with Llama.from_pretrained(
        "org/repo",
        filename="*q4_0.gguf",
        additional_files=["parts/t*.gguf"],
        local_dir=tmp_path / "here",
        local_dir_use_symlinks=False,
        **OPTIONS,
    ) as llm:
        assert Path(llm.model_path) == tmp_path / "here" / "tiny-q4_0.gguf"
    assert (tmp_path / "here" / "parts" / "two.gguf").is_file()


@pytest.mark.parametrize(
    ("repo", "pattern", "why"),
    [
        ("org/repo", "*q5*", "No file found in org/repo that match"),
        ("org/repo", "*.gguf", "Multiple files found in org/repo that match"),
        ("org/none", "*.gguf", "there is no org/none"),
        ("org/repo", "none.gguf", "has no file none.gguf"),
        ("org/gated", "a.gguf", "is gated"),
        ("nonsense//", "a.gguf", "cannot be the name of a repository"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    hub: FakeHub, tmp_path: Path, repo: str, pattern: str, why: str
) -> None:
    with pytest.raises(EdgeConflayersError, match=why) as raised:
        Llama.from_pretrained(repo, pattern, cache_dir=tmp_path, **OPTIONS)
    assert "\n" not in str(raised.value)
