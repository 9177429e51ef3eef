"""The package's folders: imports run down, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import edge_conflayers

ROOT = Path(edge_conflayers.__file__).parent

# From top to bottom: a folder may import those after it, and what is not named here.
FOLDERS = (
    "cli",
    "server",
    "llm_plugin",
    "llama",
    "generating",
    "train",
    "tune",
    "doctor",
    "bench",
    "conversation",
    "completions",
    "text_generator",
    "learned",
    "methods",
    "chat",
    "controller",
    "drafters",
    "bridges",
    "layer_search",
    "next_state",
    "exits",
    "fitting",
    "costs",
    "decoding",
    "onnx",
    "engine",
    "hub",
    "profiles",
    "machine",
    "limits",
    "extras",
    "errors",
)


def modules() -> dict[str, Path]:
    """The package's modules by name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        if "_native" not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The package's modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for each in node.names:
                name = f"{node.module}.{each.name}"
                yield name if name in known else node.module


def folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_run_down() -> None:
    known = modules()
    assert len(known) > 80
    wrong = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in imported(path, known)
        if folder(module) in FOLDERS
        and folder(other) in FOLDERS
        and FOLDERS.index(folder(other)) < FOLDERS.index(folder(module))
    ]
    assert not wrong


def test_no_folder_imports_itself_by_way_of_others() -> None:
    known = modules()
    arrows: dict[str, set[str]] = {}
    for module, path in known.items():
        others = {folder(other) for other in imported(path, known)} - {"", folder(module)}
        arrows.setdefault(folder(module), set()).update(others)

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = arrows.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    assert [name for name in arrows if name in reached(name)] == []
