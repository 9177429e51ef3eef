"""The plugin of ``llm``, in its own command line."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gguf_models import write_tiny_model

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

from doc_pages import ROOT

llm = pytest.importorskip("llm")
generating = importlib.import_module("edge_conflayers.generating")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As its entry point gives it, with the registry's models replaced by a tiny one."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("LLM_LOAD_PLUGINS", "")
    monkeypatch.setenv("EDGE_CONFLAYERS_DATA", str(tmp_path / "data"))
    tiny = write_tiny_model(tmp_path / "tiny.gguf", "llama", n_layer=2, seed=1)
    monkeypatch.setattr(generating, "resolve", lambda name, progress: tiny)
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    ((name, value),) = points["llm"].items()
    llm.get_models()  # loads the plugins that are installed
    found = EntryPoint(name, value, "llm").load()
    was_there = llm.plugins.pm.is_registered(found)
    if not was_there:
        llm.plugins.pm.register(found)
    yield found
    found._close()
    if not was_there:
        llm.plugins.pm.unregister(found)


def ask(*arguments: str) -> str:
    from llm.cli import cli

    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def expected(messages: list[dict[str, str]], **settings: Any) -> str:
    with generating.load("tiny", method="plain") as model:
        return str(generating.generate(model, messages, **settings))


def test_the_command_line(plugin: Any) -> None:
    assert "edge/smollm2-135m" in ask("models")
    options = ("-o", "max_tokens", "12", "-o", "temperature", "1.5", "-o", "seed", "7")
    settings = {"max_tokens": 12, "temperature": 1.5, "seed": 7}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    first = expected(messages, **settings)
    given = ("-m", "edge/smollm2-135m", *options)
    assert ask("prompt", *given, "-s", "Be brief.", "one") == first + "\n"
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "two"}]
    assert ask("prompt", "-c", *options, "two") == expected(messages, **settings) + "\n"


def test_python(plugin: Any) -> None:
    model = llm.get_model("edge/smollm2-135m")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    found = model.prompt("one", schema=schema)
    assert isinstance(json.loads(found.text())["a"], bool)
    assert found.usage().output > 3
    with pytest.raises(llm.ModelError, match="temperature"):
        model.prompt("one", temperature=-1.0).text()
