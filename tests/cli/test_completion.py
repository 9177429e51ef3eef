"""What the shell completes, and the scripts by which it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from installed import PACKAGE

from edge_conflayers.chat import builtin
from edge_conflayers.cli import main
from edge_conflayers.cli.chat_templates import CHAT_TEMPLATES
from edge_conflayers.cli.model_options import CACHE_TYPES
from edge_conflayers.engine.model_options import KV_TYPES
from edge_conflayers.method_names import METHOD_NAMES
from edge_conflayers.onnx.opening import PROVIDERS

HEAVY = (
    *("numpy", "llama_cpp", "jinja2", "prompt_toolkit", "huggingface_hub", "llguidance", "torch"),
    *("onnx", "onnxruntime", "fastapi", "matplotlib", "rich.table", "rich.console"),
    *("edge_conflayers.engine.native", "edge_conflayers.methods"),
)
VARIABLE = "_EDGE_CONFLAYERS_COMPLETE"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with models; nothing is pulled."""
    monkeypatch.setenv("EDGE_CONFLAYERS_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    for file in (
        "a.gguf",
        "b.txt",
        "sub/deep/one.gguf",
        "sub/deep/.two.gguf",
        "two/c.gguf",
        "two/d.gguf",
    ):
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).touch()
    (here / "exported" / "onnx").mkdir(parents=True)
    (here / "exported" / "onnx" / "model.onnx").touch()
    monkeypatch.chdir(here)
    return here


def completed(*words: str) -> list[str]:
    """What the last word may become."""
    *arguments, incomplete = words
    items = ShellComplete(main, {}, "edge-conflayers", VARIABLE).get_completions(
        arguments, incomplete
    )
    return [item.value for item in items if item.type == "plain"]


def test_commands_and_options() -> None:
    assert completed("c") == ["chat", "cost", "completion"]
    assert completed("models", "p") == ["pull", "path"]
    assert completed("run", "m", "--cache-type-") == ["--cache-type-k", "--cache-type-v"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("command", ["run", "chat", "serve", "bench", "cost", "doctor", "tune"])
def test_models(command: str) -> None:
    assert completed(command, "smol") == ["smollm2-135m"]
    assert completed(command, "a") == ["a.gguf"]
    assert completed(command, "exp") == ["exported"]
    assert completed(command, "nothing-like-it") == []


def test_models_in_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("run", "sub") == ["sub/deep/one.gguf"]  # the only ones are gone into
    assert completed("run", "two") == ["two/c.gguf", "two/d.gguf"]
    assert {"sub/", "two/", "exported", "a.gguf"} < set(completed("run", ""))
    assert completed("run", "sub/deep/.") == ["sub/deep/.two.gguf"]
    assert completed("run", f"{folder}/a") == [f"{folder}/a.gguf"]
    monkeypatch.setenv("HOME", str(folder))
    assert completed("run", "~/a") == ["~/a.gguf"]
    for nowhere in ("no/such", "~nobody-here/x", "a\0b/"):
        assert completed("run", nowhere) == []


def test_models_that_are_pulled(tmp_path: Path) -> None:
    from edge_conflayers.hub.registry import registry

    names = list(registry())
    assert completed("models", "pull", "") == names
    assert completed("models", "path", "") == completed("models", "remove", "") == []
    file = tmp_path / "cache" / "models" / f"{names[0]}.gguf"
    file.parent.mkdir(parents=True)
    with file.open("wb") as sparse:
        sparse.truncate(registry()[names[0]].size)
    assert completed("models", "path", "") == completed("models", "remove", "") == names[:1]


def test_no_home_and_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_conflayers.hub.registry.REGISTRY_FILES", ())
    assert completed("run", "a") == ["a.gguf"]


def test_names_that_options_take() -> None:
    assert completed("run", "m", "--method", "l") == ["layerskip", "lookup"]
    assert completed("bench", "m", "--methods", "plain,upst") == [
        "plain,upstream",
        "plain,upstream-lookup",
    ]
    assert "plain,plain" not in completed("bench", "m", "--methods", "plain,")
    assert completed("run", "m", "--kernels", "") == ["ecl", "upstream"]
    assert completed("tune", "m", "-ctk", "q8") == ["q8_0"]
    assert completed("run", "m", "--draft-model", "smol") == ["smollm2-135m"]
    assert completed("run", "m", "--chat-template", "llama3") == ["llama3"]
    assert completed("run", "m", "--rope-scaling", "y") == ["yarn"]
    assert completed("run", "m", "--provider", "c") == ["cpu", "cuda", "coreml"]
    assert completed("run", "m", "--response-format", "j") == ["json_object"]


def test_names_are_those_that_there_are() -> None:
    assert builtin.names() == CHAT_TEMPLATES
    assert set(CACHE_TYPES) == set(KV_TYPES)
    assert set(completed("run", "m", "--provider", "")) == set(PROVIDERS)
    assert completed("run", "m", "--method", "") == list(METHOD_NAMES)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command, and prints on standard error which heavy modules it has imported."""
    code = (
        "import atexit, sys\n"
        f"heavy = lambda: sorted(set({HEAVY}) & set(sys.modules))\n"
        "atexit.register(lambda: print('heavy:', heavy(), file=sys.stderr))\n"
        "from edge_conflayers.__main__ import main\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--version",
        "run --help",
        "bench --help",
        "chat --help",
        "models list",
        "models list --json",
        "models --help",
        "completion bash",
    ],
)
def test_little_is_imported(line: str) -> None:
    done = python(*line.split())
    assert done.returncode == 0 and done.stdout
    assert done.stderr.splitlines()[-1] == "heavy: []", done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("run smol", "plain,smollm2-135m"),
        ("run m --method auto --chat-template chatm", "plain,chatml"),
        ("bench m --methods dss", "plain,dssd"),
        ("chat m --draft-model smol", "plain,smollm2-135m"),
    ],
)
def test_little_is_imported_to_complete(words: str, found: str) -> None:
    line = f"edge-conflayers {words}"
    cword = str(len(line.split()) - 1)
    done = python(COMP_WORDS=line, COMP_CWORD=cword, **{VARIABLE: "bash_complete"})
    assert done.returncode == 0 and found in done.stdout.split()
    assert done.stderr.splitlines()[-1] == "heavy: []", done.stderr


@pytest.fixture
def command_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``edge-conflayers``, as the shell finds it."""
    script = tmp_path / "bin" / "edge-conflayers"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edge_conflayers "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))


def shell(name: str, script: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    done = subprocess.run([name, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("command_on_path")
def test_bash_completes() -> None:
    answered = shell(
        "bash",
        """
        set -e
        source <(edge-conflayers completion bash)
        complete -p edge-conflayers
        COMP_WORDS=(edge-conflayers run smol) COMP_CWORD=2
        _edge_conflayers_completion edge-conflayers
        echo "${COMPREPLY[@]}"
        COMPREPLY=() COMP_WORDS=(edge-conflayers run m --method look) COMP_CWORD=4
        _edge_conflayers_completion edge-conflayers
        echo "${COMPREPLY[@]}"
        """,
    )
    registered, model, method = answered.splitlines()
    assert "-F _edge_conflayers_completion edge-conflayers" in registered
    assert (model, method) == ("smollm2-135m", "lookup")


@pytest.mark.usefixtures("command_on_path")
@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells_take_their_scripts(name: str, tmp_path: Path) -> None:
    script = CliRunner().invoke(main, ["completion", name]).stdout
    assert VARIABLE in script and "edge-conflayers" in script
    (tmp_path / "script").write_text(script)
    shell(name, f"{name} -n {tmp_path / 'script'}")
    if name == "fish":
        asked = f"source {tmp_path / 'script'}; complete -C 'edge-conflayers run smol'"
        assert shell("fish", asked).split("\t")[0].strip() == "smollm2-135m"


def test_other_shells_are_refused() -> None:
    done = CliRunner().invoke(main, ["completion", "tcsh"])
    assert done.exit_code == 2 and "'bash', 'zsh', 'fish'" in done.stderr
