"""What a user may call a model."""

from __future__ import annotations

import pytest

from edge_conflayers.errors import BadInput
from edge_conflayers.hub.reference import (
    HubReference,
    UrlReference,
    choose_files,
    file_parts,
    parse_reference,
    quantizations,
)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("org/repo", HubReference("org/repo")),
        ("org/repo:Q8_0", HubReference("org/repo", "Q8_0")),
        ("Qwen/Qwen2.5-0.5B-GGUF:q4_0", HubReference("Qwen/Qwen2.5-0.5B-GGUF", "q4_0")),
        ("https://huggingface.co/org/repo", HubReference("org/repo")),
        (
            "https://huggingface.co/org/repo/blob/v2/sub/a%20b.gguf",
            HubReference("org/repo", file="sub/a b.gguf", revision="v2"),
        ),
        (
            "https://hf.co/org/repo/resolve/main/a.gguf?download=true",
            HubReference("org/repo", file="a.gguf"),
        ),
        ("http://example.org/x/a.GGUF?key=1", UrlReference("http://example.org/x/a.GGUF?key=1")),
        ("models/nothing.gguf", None),
        ("../../etc/nothing", None),
        ("./model", None),
        ("a/b/c", None),
        ("name", None),
        ("org/repo:", None),
        ("/org", None),
    ],
)
def test_names(given: str, meant: HubReference | UrlReference | None) -> None:
    assert parse_reference(given) == meant


@pytest.mark.parametrize("url", ["https://example.org/page.html", "https:///a.gguf", "http://x"])
def test_addresses_without_a_model(url: str) -> None:
    with pytest.raises(BadInput, match=r"does not name a \.gguf file"):
        parse_reference(url)


def test_a_mirror_is_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    url = "https://mirror.example/org/repo/resolve/main/a.gguf"
    assert parse_reference(url) == HubReference("org/repo", file="a.gguf")


FILES = [
    "README.md",
    "imatrix-Q4_K_M.gguf",
    "mmproj-model-Q4_K_M.gguf",
    "model-IQ4_XS.gguf",
    "model-Q4_K_S.gguf",
    "model-q4_k_m.gguf",
    "model.Q8_0.gguf",
    "F16/model-F16-00001-of-00002.gguf",
    "F16/model-F16-00002-of-00002.gguf",
]


@pytest.mark.parametrize(
    ("quantization", "chosen"),
    [
        (None, ["model-q4_k_m.gguf"]),
        ("q8_0", ["model.Q8_0.gguf"]),
        ("Q4_K_S", ["model-Q4_K_S.gguf"]),
        ("F16", FILES[-2:]),
    ],
)
def test_quantizations_are_chosen(quantization: str | None, chosen: list[str]) -> None:
    assert choose_files("org/repo", FILES, quantization) == chosen


def test_the_first_file_where_none_is_preferred() -> None:
    assert choose_files("org/repo", ["b.txt", "x-Q5_0.gguf", "x-Q8_0.gguf"], None) == [
        "x-Q5_0.gguf"
    ]


def test_a_part_of_a_tag_is_not_the_tag() -> None:
    with pytest.raises(BadInput, match="has no Q4_K; it has IQ4_XS, Q4_K_S, q4_k_m, Q8_0, F16"):
        choose_files("org/repo", FILES, "Q4_K")


def test_repositories_without_a_model() -> None:
    with pytest.raises(BadInput, match="holds no GGUF model"):
        choose_files("org/repo", ["model.safetensors", "mmproj-x.gguf"], None)
    with pytest.raises(BadInput, match=r"lacks F16/model-F16-00002-of-00002\.gguf"):
        choose_files("org/repo", FILES[:-1], "F16")


def test_parts() -> None:
    assert file_parts("a.gguf") == ["a.gguf"]
    assert file_parts("a-00001-of-00003.gguf")[2] == "a-00003-of-00003.gguf"
    for wrong in ("a-00002-of-00003.gguf", "a-00001-of-00000.gguf", "a-00001-of-99999.gguf"):
        with pytest.raises(BadInput, match="not the first part"):
            file_parts(wrong)
    assert quantizations(["Q8/x-BF16-00001-of-00002.gguf", "odd.gguf"]) == ["BF16", "odd.gguf"]
