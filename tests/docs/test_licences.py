"""THIRD_PARTY_LICENSES names all that the package holds of others' work."""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from doc_pages import ROOT

import edge_conflayers
from edge_conflayers.hub.registry import registry

TEXT = (ROOT / "THIRD_PARTY_LICENSES").read_text(encoding="utf-8")
ENTRIES = {
    name: (files.split(), licence)
    for name, files, licence in re.findall(
        r"^(.+)\n-+\nsource: (?:.+\n)+?files: (.+)\nlicence: (.+)$", TEXT, re.M
    )
}


def native_folder() -> Path:
    """Of the package under test; an editable install keeps what is built apart."""
    return next(
        folder
        for each in edge_conflayers.__path__
        if (folder := Path(each) / "_native").joinpath("lib").is_dir()
    )


def test_every_entry_is_read() -> None:
    assert len(ENTRIES) == len(re.findall("^files: ", TEXT, re.M)) >= 6
    assert {"llama.cpp and ggml", "llama-cpp-python"} <= set(ENTRIES)


def test_every_file_that_is_installed_is_named() -> None:
    native = native_folder()
    globs = [glob for files, _ in ENTRIES.values() for glob in files]
    files = [
        path.relative_to(native.parent).as_posix()
        for path in native.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(files) > 10
    unnamed = [file for file in files if not any(fnmatch(file, glob) for glob in globs)]
    assert not unnamed, f"name these in THIRD_PARTY_LICENSES: {unnamed}"


def test_their_licences_are_those_that_came_with_them() -> None:
    native = native_folder()
    known = " ".join(TEXT.split())
    for file in (native / "lib" / "LICENSE", native / "llama_cpp" / "LICENSE.md"):
        text = " ".join(file.read_text(encoding="utf-8").split())
        assert text.removeprefix("MIT License ") in known, file.name


def test_what_cmake_installs_is_what_was_looked_at() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    installed = re.findall(r"install\((?:DIRECTORY|FILES) ([^\n]+)", cmake)
    assert sorted(installed) == [
        "${ECL_SOURCE}/LICENSE.md",
        "${ECL_SOURCE}/llama_cpp",
        "${LLAMA_CPP}/LICENSE",
        "models/registry.toml native/upstream.toml",
    ], "CMake installs something else: name its licence in THIRD_PARTY_LICENSES"


def test_the_versions_are_the_pinned_ones() -> None:
    pin = (ROOT / "native" / "upstream.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', pin, re.M)
    assert version is not None
    named = re.findall(r"llama-cpp-python(?:,? version)? (\d+\.\d+\.\d+)", TEXT)
    assert len(named) == 2 and "github.com/abetlen/llama-cpp-python, version" in TEXT
    assert set(named) == {version[1]}


def test_models_licences_are_named() -> None:
    for model in registry().values():
        assert model.licence in TEXT, model.name


def test_the_wheel_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    backend = importlib.import_module("scikit_build_core.build")
    folder = tmp_path / backend.prepare_metadata_for_build_wheel(str(tmp_path))
    for name in ("LICENSE", "THIRD_PARTY_LICENSES"):
        packed = list(folder.rglob(name))
        assert packed and packed[0].read_bytes() == (ROOT / name).read_bytes()
